-- Removes a shard of an archived sale.
--
-- KEYS  1 meta, 2 claims, 3 orders, 4 control
-- ARGV  1 ring
-- Answer  the number of keys that were removed
-- Errors  WRONGRING, NOTCONTROL
--
-- Atomic because a shard exists with all of its keys or not at all. UNLINK frees a large key in another thread, so the call takes
-- the same time for any number of orders. A shard that is gone already is written and removed again: the barrier behind
-- the call then proves that no replica has it. A shard of another sale of the same name is refused, however late the call
-- arrives.
local function archive(keys, args)
  local meta, claims, orders, control = keys[1], keys[2], keys[3], keys[4]
  local refusal = require_control(meta, control)
  if refusal then return refusal end
  local held = redis.call('HGET', meta, 'ring')
  if held then
    refusal = check_ring(held, args[1])
    if refusal then return refusal end
  end

  redis.call('SET', control, '')
  return redis.call('UNLINK', meta, claims, orders, control) - 1
end
