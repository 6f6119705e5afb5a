-- Takes, renews or releases the lease of the leading coordinator.
--
-- KEYS  1 lease
-- ARGV  1 coordinator, 2 time to hold the lease, ms (0 releases it)
-- Answer  { the coordinator that holds the lease after the call, or an empty text; ms left of it }
--
-- Atomic because the holder must be read and replaced in one step: of two coordinators that find the lease free, one
-- gets it. A lease of another coordinator is cut to the requested time at most. Replicas store the instant at which
-- the lease ends, so a promoted replica whose clock is behind would otherwise keep the lease of a dead coordinator
-- for that long. There is no barrier: when a failover forgets the lease, two coordinators do the same work for a
-- while, and all of it may be done twice.
local function lead(keys, args)
  local holder, wanted = redis.call('GET', keys[1]), tonumber(args[2])
  if holder and holder ~= args[1] then
    local left = redis.call('PTTL', keys[1])
    if wanted > 0 and left > wanted then
      left = wanted
      redis.call('PEXPIRE', keys[1], left)
    end
    return { holder, left }
  end
  if wanted == 0 then
    redis.call('DEL', keys[1])
    return { '', 0 }
  end
  redis.call('SET', keys[1], args[1], 'PX', wanted)
  return { args[1], wanted }
end
