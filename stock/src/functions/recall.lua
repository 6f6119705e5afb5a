-- Reads a sale's config together with the tokens minted to each shard, durably when a barrier follows.
--
-- KEYS  1 config, 2 mint
-- ARGV  none
-- Answer  { config as JSON, { shard, cumulative tokens minted, … } }, or nil when there is no such sale, or its mint is
--         lost
-- Errors  none
--
-- Atomic because config and mint belong together, and because the `tick` written with them makes the barrier behind
-- this call cover both. A failover may undo a record that was only read, while the shards would keep the settings
-- taken from it. `tick` is a field of the mint, next to the shard numbers, and is not counted as a shard. A lost mint
-- stays lost: writing `tick` would make one without tokens.
local function recall(keys)
  local config = redis.call('GET', keys[1])
  if not config or not redis.call('HGET', keys[2], 0) then return nil end
  redis.call('HINCRBY', keys[2], 'tick', 1)
  return { config, redis.call('HGETALL', keys[2]) }
end
