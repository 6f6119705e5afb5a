-- The giving half of a transfer: moves tokens from this shard's stock into the channel to another shard.
--
-- KEYS  1 meta
-- ARGV  1 ring, 2 receiving shard, 3 tokens wanted (0 only reads the channel's value)
-- Answer  { cumulative out[to], stock left }
-- Errors  NOSHARD, WRONGRING
--
-- Atomic because a token must leave the stock and enter the channel at the same instant. Gives at most half of the
-- stock, so that a steal does not empty a shard that sells well, and at least one token, so that the last token can
-- move. A repeated call gives again; these tokens wait in the channel, which is cumulative, and are not lost. A call
-- that only repeats the channel's value writes `tick`, so that the barrier before `accept` covers the earlier
-- donation.
local function donate(keys, args)
  local meta, channel = keys[1], 'out:' .. args[2]
  local shard = redis.call('HMGET', meta, 'ring', 'stock', channel)
  local refusal = check_ring(shard[1], args[1])
  if refusal then return refusal end

  local stock, out, wanted = tonumber(shard[2]), tonumber(shard[3] or 0), tonumber(args[3])
  local given = math.min(wanted, stock, math.max(1, math.floor(stock / 2)))
  if given > 0 then
    stock, out = stock - given, out + given
    redis.call('HSET', meta, 'stock', stock, channel, out)
  elseif out > 0 then
    redis.call('HINCRBY', meta, 'tick', 1)
  end
  return { out, stock }
end
