-- Records a sale's config, the tokens minted to each shard, and the change as an entry of the sale's history, unless
-- another caller changed the sale first.
--
-- KEYS  1 config, 2 mint, 3 history
-- ARGV  1 version that this change is based on (0: new sale), 2 config as JSON with a newer version, 3 entry of the
--       history, 4 most entries kept, then for each shard: shard, cumulative tokens minted
-- Answer  { 1 recorded or 0 overtaken, the recorded config as JSON }
--
-- Atomic because the total in the config and the minted tokens belong together: after a crash between the two, stock
-- would be announced but not minted, or minted again. Of two coordinators that change a sale at once, only one
-- succeeds. A caller that has missed that the sale was deleted and created again is overtaken, too, with any version.
-- The mint only grows, so a repetition is harmless; mint and history of a new sale start empty. A repeated call writes
-- again, so that the barrier behind it also covers the first one, but adds its entry once. A change without its entry,
-- or an entry without its change, cannot be recorded.
local REPEATED_MAX = 16
local function record(keys, args)
  local held = redis.call('GET', keys[1])
  if not held then
    if tonumber(args[1]) ~= 0 then return { 0, held } end
    redis.call('DEL', keys[2], keys[3])
  elseif held ~= args[2] then
    local before, after = cjson.decode(held), cjson.decode(args[2])
    if before.version ~= tonumber(args[1]) or before.layout.creation ~= after.layout.creation then
      return { 0, held }
    end
  end
  for arg = 5, #args, 2 do
    local minted = tonumber(redis.call('HGET', keys[2], args[arg]) or 0)
    redis.call('HSET', keys[2], args[arg], math.max(minted, tonumber(args[arg + 1])))
  end
  local is_known = false
  for _, entry in ipairs(redis.call('LRANGE', keys[3], -REPEATED_MAX, -1)) do
    is_known = is_known or entry == args[3]
  end
  if not is_known then
    redis.call('RPUSH', keys[3], args[3])
    redis.call('LTRIM', keys[3], -tonumber(args[4]), -1)
  end
  redis.call('SET', keys[1], args[2])
  return { 1, args[2] }
end
