-- Raises the tokens that are minted to a shard to a cumulative value.
--
-- KEYS  1 meta, 2 control
-- ARGV  1 ring, 2 cumulative number of tokens minted to this shard
-- Answer  { in[mint] after the call, stock after the call }
-- Errors  NOSHARD, WRONGRING, NOTCONTROL
--
-- Atomic because the counter and the stock must grow together. Otherwise as `accept`. It is an operation of its own
-- because only a coordinator may mint: its second key is one that no other user of Redis may write.
local function mint(keys, args)
  return require_control(keys[1], keys[2]) or raise_channel(keys[1], args[1], 'in:mint', args[2])
end
