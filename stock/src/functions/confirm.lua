-- Reads the number of units that a shard has sold, and of the entries in its order stream, durably when a barrier follows.
--
-- KEYS  1 meta
-- ARGV  1 ring
-- Answer  { units sold, number of the latest entry, number of the latest entry in a ledger or -1, ms since that was noted }
-- Errors  NOSHARD, WRONGRING
--
-- Atomic because the numbers and the `tick` written with them must be of one moment: the barrier behind this call then
-- covers every sale in them. A level that is only read may contain sales that a failover undoes.
local function confirm(keys, args)
  local shard = redis.call('HMGET', keys[1], 'ring', 'sold', 'seq', 'drained', 'drained_at')
  local refusal = check_ring(shard[1], args[1])
  if refusal then return refusal end

  redis.call('HINCRBY', keys[1], 'tick', 1)
  local drained, age = -1, 0
  if shard[4] and shard[5] then
    drained, age = tonumber(shard[4]), math.max(0, tonumber(now_ms()) - tonumber(shard[5]))
  end
  return { tonumber(shard[2]), tonumber(shard[3]), drained, age }
end
