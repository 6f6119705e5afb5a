-- Reads a shard's whole meta: settings, stock, sold, and both ends of its channels.
--
-- KEYS  1 meta
-- ARGV  none
-- Answer  { now in ms, { field, value, … } }
-- Errors  NOSHARD
--
-- Atomic because stock, sold and the counters must be of one instant to balance. Writes nothing.
local function level(keys)
  local fields = redis.call('HGETALL', keys[1])
  if #fields == 0 then
    return redis.error_reply('NOSHARD this shard does not exist')
  end
  return { now_ms(), fields }
end
