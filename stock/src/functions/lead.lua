-- Takes, renews or gives up the lease on leading the coordinators.
--
-- KEYS  1 lease
-- ARGV  1 coordinator, 2 how long it wants to hold the lease, ms (0 gives it up)
-- Answer  { the coordinator that holds it after, or an empty text; ms that are left of it }
--
-- Atomic because looking who holds the lease and taking it must not be parted: of two who find it free, one gets
-- it. Another's lease is only cut to the time that is asked for: replicas keep the instant at which it ends, so one
-- whose clock is behind would keep the lease of a dead coordinator for as long. Nobody waits for replicas: a lease
-- that a failover forgets makes two coordinators do the same work for a while, and all of it can be done twice.
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
