-- Request generator for wrk: each request is a purchase by a new user. The argument is the run's name, which keeps
-- the user ids of two runs apart.
local run, sent

function init(arguments)
  run, sent = arguments[1], 0
end

function request()
  sent = sent + 1
  local body = string.format('{"userId":"buyer-%s-%010d"}', run, sent)
  return wrk.format('POST', nil, { ['Content-Type'] = 'application/json' }, body)
end
