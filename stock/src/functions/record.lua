-- Records a sale's config together with the tokens minted to each shard, unless another caller changed it first.
--
-- KEYS  1 config, 2 mint
-- ARGV  1 version that this change is based on (0: new sale), 2 config as JSON with a newer version,
--       then for each shard: shard, cumulative tokens minted
-- Answer  { 1 recorded or 0 overtaken, the recorded config as JSON }
--
-- Atomic because the total in the config and the minted tokens belong together: after a crash between the two, stock
-- would be announced but not minted, or minted again. Of two coordinators that change a sale at once, only one
-- succeeds. A caller that has missed that the sale was deleted and created again is overtaken, too, with any version.
-- The mint only grows, so a repetition is harmless; that of a new sale starts empty. A repeated call writes again, so
-- that the barrier behind it also covers the first one.
local function record(keys, args)
  local held = redis.call('GET', keys[1])
  if not held then
    if tonumber(args[1]) ~= 0 then return { 0, held } end
    redis.call('DEL', keys[2])
  elseif held ~= args[2] then
    local before, after = cjson.decode(held), cjson.decode(args[2])
    if before.version ~= tonumber(args[1]) or before.layout.creation ~= after.layout.creation then
      return { 0, held }
    end
  end
  for arg = 3, #args, 2 do
    local minted = tonumber(redis.call('HGET', keys[2], args[arg]) or 0)
    redis.call('HSET', keys[2], args[arg], math.max(minted, tonumber(args[arg + 1])))
  end
  redis.call('SET', keys[1], args[2])
  return { 1, args[2] }
end
