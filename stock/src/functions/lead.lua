-- Takes, renews or gives up the lease on leading the coordinators.
--
-- KEYS  1 lease
-- ARGV  1 coordinator, 2 how long it wants to hold the lease, ms (0 gives it up)
-- Answer  { the coordinator that holds it after, or an empty text; ms that are left of it }
--
-- Atomic because looking who holds the lease and taking it must not be parted: of two who find it free, one gets
-- it. Whoever does not hold it changes nothing. Nobody waits for replicas: a lease that a failover forgets makes
-- two coordinators do the same work for a while, and all of it can be done twice.
local function lead(keys, args)
  local holder, wanted = redis.call('GET', keys[1]), tonumber(args[2])
  if holder and holder ~= args[1] then
    return { holder, redis.call('PTTL', keys[1]) }
  end
  if wanted == 0 then
    redis.call('DEL', keys[1])
    return { '', 0 }
  end
  redis.call('SET', keys[1], args[1], 'PX', wanted)
  return { args[1], wanted }
end
