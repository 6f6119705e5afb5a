-- Request generator for wrk.
--
-- Arguments: kind of the requests (`purchase`, `lookup` or `status`), prefix of the user ids, number of users (0: each
-- request is by a new user), number of requests after which a connection closes (0: never), number of sales that the
-- requests are spread over (0: the sale in the URL)
local kind, prefix, users, closing, sales, sent

function init(arguments)
  kind, prefix = arguments[1], arguments[2]
  users, closing, sales = tonumber(arguments[3]), tonumber(arguments[4]), tonumber(arguments[5])
  sent = 0
end

function request()
  sent = sent + 1
  local headers = {}
  if closing > 0 and sent % closing == 0 then headers['Connection'] = 'close' end
  local number = users > 0 and sent % users or sent
  local user = string.format('%s-%010d', prefix, number)
  if kind == 'status' then return wrk.format('GET', nil, headers) end
  if kind == 'lookup' then return wrk.format('GET', wrk.path .. '/' .. user, headers) end
  headers['Content-Type'] = 'application/json'
  local path = sales > 0 and string.format('/api/sales/open-%d/purchase', sent % sales) or nil
  return wrk.format('POST', path, headers, string.format('{"userId":"%s"}', user))
end
