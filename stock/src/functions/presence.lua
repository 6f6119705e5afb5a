-- Says that a process is there, or that it goes, and answers who is there.
--
-- KEYS  1 presence
-- ARGV  1 the process' name (empty to ask only), 2 its kind, 3 its version, 4 ms since it started (negative: it goes)
-- Answer  { now in ms, { name, started at:seen at:kind:version, … } }
-- Errors  none
--
-- Atomic because whoever was not heard of for `FORGET_MS` is forgotten by whoever looks: apart, a process that says
-- in between that it is there would be forgotten, too. Nobody waits for replicas: what a failover forgets is said
-- again within a second.
local FORGET_MS, PROCESSES_MAX = 10000, 256
local function presence(keys, args)
  local now, name, running = now_ms(), args[1], tonumber(args[4])
  local told, present, count = redis.call('HGETALL', keys[1]), {}, 0
  for field = 1, #told, 2 do
    local seen_at = tonumber(string.match(told[field + 1], '^%d+:(%d+):'))
    if not seen_at or tonumber(now) - seen_at > FORGET_MS then
      redis.call('HDEL', keys[1], told[field])
    elseif told[field] ~= name then
      present[#present + 1], present[#present + 2], count = told[field], told[field + 1], count + 1
    end
  end
  if name ~= '' and running < 0 then
    redis.call('HDEL', keys[1], name)
  elseif name ~= '' and count < PROCESSES_MAX then
    local entry = string.format('%.0f:%s:%s:%s', tonumber(now) - running, now, args[2], args[3])
    redis.call('HSET', keys[1], name, entry)
    present[#present + 1], present[#present + 2] = name, entry
  end
  return { now, present }
end
