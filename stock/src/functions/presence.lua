-- Reports that a process is running or stopping, and lists the running processes.
--
-- KEYS  1 presence
-- ARGV  1 name of the process (empty to list only), 2 its kind, 3 its version, 4 ms since its start (negative: stops)
-- Answer  { now in ms, { name, started at:seen at:kind:version, … } }
-- Errors  none
--
-- Atomic because a call also removes processes that have not reported for `FORGET_MS`: otherwise a process that
-- reports in between could be removed, too. There is no barrier: entries that a failover forgets are reported again
-- within a second.
local FORGET_MS, PROCESSES_MAX = 10000, 256
local function presence(keys, args)
  local now, name, running = now_ms(), args[1], tonumber(args[4])
  local entries, present, count = redis.call('HGETALL', keys[1]), {}, 0
  for field = 1, #entries, 2 do
    local seen_at = tonumber(string.match(entries[field + 1], '^%d+:(%d+):'))
    if not seen_at or tonumber(now) - seen_at > FORGET_MS then
      redis.call('HDEL', keys[1], entries[field])
    elseif entries[field] ~= name then
      present[#present + 1], present[#present + 2], count = entries[field], entries[field + 1], count + 1
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
