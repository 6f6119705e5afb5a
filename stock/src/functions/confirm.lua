-- Reads how much a shard has sold, so that the answer outlives its primary.
--
-- KEYS  1 meta
-- ARGV  1 ring fingerprint
-- Answer  units sold
-- Errors  NOSHARD, WRONGRING
--
-- Atomic because the number and the `tick` written with it are of one moment: the barrier behind this call proves
-- every sale that is in the number. A level that was merely read may hold sales that a failover takes back.
local function confirm(keys, args)
  local shard = redis.call('HMGET', keys[1], 'ring', 'sold')
  local refusal = misdirected(shard[1], args[1])
  if refusal then return refusal end

  redis.call('HINCRBY', keys[1], 'tick', 1)
  return tonumber(shard[2])
end
