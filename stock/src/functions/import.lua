-- Imports orders of a sale whose data was lost: claims their users, and appends the orders to the stream.
--
-- KEYS  1 meta, 2 claims, 3 orders, 4 control
-- ARGV  1 ring, then for each order: user id, claim "order:ms", correlation id
-- Answer  { units sold, number of the latest entry }
-- Errors  NOSHARD, WRONGRING, NOTCONTROL, NOTCREATING, CLAIMED
--
-- Atomic because claim, order and counters must appear together. The unit of an imported order is minted and sold in the
-- same step, so the shard's books balance after each call. An order that the shard has already is left out, which makes
-- the call idempotent; it writes `tick` then, so that the barrier behind it also covers the earlier call. Only a shard
-- that is being created takes imported orders: once it sells, its claims come from `buy` alone.
local function import(keys, args)
  local meta, claims, orders = keys[1], keys[2], keys[3]
  local refusal = require_control(meta, keys[4])
  if refusal then return refusal end
  local shard = redis.call('HMGET', meta, 'ring', 'state', 'sold', 'seq', 'in:mint')
  refusal = check_ring(shard[1], args[1])
  if refusal then return refusal end
  if shard[2] ~= 'creating' then
    return redis.error_reply('NOTCREATING this shard is ' .. tostring(shard[2]) .. ', and takes no imported orders')
  end

  local users = {}
  for arg = 2, #args, 3 do users[#users + 1] = args[arg] end
  local held = redis.call('HMGET', claims, unpack(users))
  local new_claims, entry, fields = {}, {}, 0
  for place, user in ipairs(users) do
    local claim = args[place * 3]
    if not held[place] then
      new_claims[fields + 1], new_claims[fields + 2] = user, claim
      entry[fields + 1], entry[fields + 2] = user, claim .. ':' .. args[place * 3 + 1]
      fields = fields + 2
    elseif held[place] ~= claim then
      return redis.error_reply('CLAIMED the user of order ' .. claim .. ' has claim ' .. held[place])
    end
  end

  local sold, seq = tonumber(shard[3]), tonumber(shard[4])
  if fields == 0 then
    redis.call('HINCRBY', meta, 'tick', 1)
    return { sold, seq }
  end
  sold, seq = sold + fields / 2, seq + 1
  redis.call('XADD', orders, seq .. '-0', unpack(entry))
  redis.call('HSET', claims, unpack(new_claims))
  redis.call('HSET', meta, 'sold', sold, 'seq', seq, 'in:mint', tonumber(shard[5] or 0) + fields / 2)
  return { sold, seq }
end
