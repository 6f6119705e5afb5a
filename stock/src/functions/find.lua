-- Looks up the claims of a batch of users in their home shard.
--
-- KEYS  1 meta, 2 claims
-- ARGV  1 ring fingerprint, then a user id each
-- Answer  one element a user: the claim "order:ms", or false
-- Errors  NOSHARD, WRONGRING
--
-- Atomic because a claim that is found also writes `tick`: the barrier behind this call then proves that the
-- claim outlives its primary, and "you have it" stays true.
local function find(keys, args)
  local refusal = misdirected(redis.call('HGET', keys[1], 'ring'), args[1])
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
