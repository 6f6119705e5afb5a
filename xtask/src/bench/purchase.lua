-- For wrk: each request is the purchase of another user. The argument tells runs apart.
local run, sent

function init(arguments)
  run, sent = arguments[1], 0
end

function request()
  sent = sent + 1
  local body = string.format('{"userId":"buyer-%s-%010d"}', run, sent)
  return wrk.format('POST', nil, { ['Content-Type'] = 'application/json' }, body)
end
