-- The receiving half of a transfer: raises the channel from another shard to a cumulative value.
--
-- KEYS  1 meta
-- ARGV  1 ring, 2 giving shard (or `mint`), 3 cumulative value of its out counter
-- Answer  { in[from] after the call, stock after the call }
-- Errors  NOSHARD, WRONGRING
--
-- Atomic because the counter and the stock must grow together. Taking the maximum makes the call idempotent:
-- repeated, stale or out of order, each token of the channel enters the stock once. A call that has nothing to do
-- writes `tick`, so that the barrier behind it also covers the earlier call.
local function accept(keys, args)
  local meta, channel = keys[1], 'in:' .. args[2]
  local shard = redis.call('HMGET', meta, 'ring', 'stock', channel)
  local refusal = check_ring(shard[1], args[1])
  if refusal then return refusal end

  local stock, before, cumulative = tonumber(shard[2]), tonumber(shard[3] or 0), tonumber(args[3])
  if cumulative <= before then
    redis.call('HINCRBY', meta, 'tick', 1)
    return { before, stock }
  end
  stock = stock + cumulative - before
  redis.call('HSET', meta, 'stock', stock, channel, cumulative)
  return { cumulative, stock }
end
