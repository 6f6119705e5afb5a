-- Looks up the claims of a batch of users in their home shard.
--
-- KEYS  1 meta, 2 claims
-- ARGV  1 ring, then one user id per user
-- Answer  one element per user: the claim "order:ms", or false
-- Errors  NOSHARD, WRONGRING
--
-- Atomic because `tick` must be written together with reading a claim: the barrier behind this call then proves that
-- a failover does not undo the claim.
local function find(keys, args)
  local refusal = check_ring(redis.call('HGET', keys[1], 'ring'), args[1])
  if refusal then return refusal end

  local found = redis.call('HMGET', keys[2], unpack(args, 2))
  for user = 1, #found do
    if found[user] then
      redis.call('HINCRBY', keys[1], 'tick', 1)
      break
    end
  end
  return found
end
