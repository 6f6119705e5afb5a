-- Reads a shard's whole meta: settings, stock, sold, and both ends of its channels.
--
-- KEYS  1 meta
-- ARGV  none
-- Answer  { now in ms, { field, value, … } }
-- Errors  NOSHARD
--
-- Atomic so that stock, sold and the counters are of one instant and the shard's books balance. Writes nothing.
local function level(keys)
  local fields = redis.call('HGETALL', keys[1])
  if #fields == 0 then
    return redis.error_reply('NOSHARD this shard does not exist')
  end
  return { now_ms(), fields }
end
