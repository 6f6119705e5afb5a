-- Reads a sale's config together with what was minted to each shard, so that the answer outlives its primary.
--
-- KEYS  1 config, 2 mint
-- ARGV  none
-- Answer  { config as JSON, { shard, cumulative tokens minted, … } }, or nil without such a sale
-- Errors  none
--
-- Atomic because config and mint are one promise, and because the `tick` written with them makes the barrier behind
-- this call prove both. A record that was merely read may be one that a failover takes back, and what shards were
-- brought to on its word would stay. It lies in the mint, among shards' numbers, where it is taken for none.
local function recall(keys)
  local config = redis.call('GET', keys[1])
  if not config then return nil end
  redis.call('HINCRBY', keys[2], 'tick', 1)
  return { config, redis.call('HGETALL', keys[2]) }
end
