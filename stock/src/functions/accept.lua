-- The receiving half of a transfer: raises the channel from another shard to a cumulative value.
--
-- KEYS  1 meta
-- ARGV  1 ring, 2 giving shard, 3 cumulative value of its out counter
-- Answer  { in[from] after the call, stock after the call }
-- Errors  NOSHARD, WRONGRING, NOTASHARD
--
-- Atomic because the counter and the stock must grow together. Taking the maximum makes the call idempotent:
-- repeated, stale or out of order, each token of the channel enters the stock once. A call that has nothing to do
-- writes `tick`, so that the barrier behind it also covers the earlier call. Minted tokens come from no shard: `mint`
-- brings them.
local function accept(keys, args)
  if not string.find(args[2], '^%d+$') then
    return redis.error_reply('NOTASHARD tokens are accepted from a shard, not from ' .. args[2])
  end
  return raise_channel(keys[1], args[1], 'in:' .. args[2], args[3])
end
