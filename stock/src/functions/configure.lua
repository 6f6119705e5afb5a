-- Brings a shard to a version of the sale's settings. Creates the shard while the sale is being created.
--
-- KEYS  1 meta, 2 claims, 3 orders, 4 control
-- ARGV  1 ring, 2 version, 3 state, 4 starts at ms, 5 ends at ms, 6 incarnation of the shard if this call creates it
-- Answer  { version, state, starts at ms, ends at ms, ring } that the shard holds after the call
-- Errors  NOSHARD, WRONGRING, NOTCONTROL
--
-- Atomic because versions must be compared and changed in one step, and because all keys of a shard must be
-- created together: a slot migrates only whole, and meanwhile a call that names a missing key is refused. Only the
-- state `creating` creates a shard. A shard that is lost later must never be used again, because minting it again would
-- sell its tokens twice. But a call may arrive at any time after it was sent, so the state alone does not prevent that.
-- Therefore each call has an incarnation of its own, which becomes a part of the ring of the shard that it creates. The
-- record of an open sale names the incarnations, and all calls for that sale carry them; such a call never creates.
-- Each version of the record has one content, so different settings of the same version are replaced. A call that
-- changes nothing writes `tick`, so that the barrier behind it proves the settings that the shard holds. Only a
-- coordinator may configure: the control key is one that no other user of Redis may write.
-- A shard may be some versions ahead of a record that was lost in a failover. A version far ahead is none that a
-- coordinator gave: it counts as none, so that the shard follows the record again.
local VERSIONS_AHEAD_MAX = 1000000
local function configure(keys, args)
  local meta, claims, orders, control = keys[1], keys[2], keys[3], keys[4]
  local refusal = require_control(meta, control)
  if refusal then return refusal end
  local shard = redis.call('HMGET', meta, 'ring', 'version', 'state', 'starts_at', 'ends_at')
  if not shard[1] and args[3] == 'creating' and not string.find(args[1], ':', 1, true) then
    -- A hash cannot be empty, so the claims get a field that is no user id. A stream remains when its last entry is
    -- deleted.
    redis.call('XADD', orders, '0-1', 'created', args[2])
    redis.call('XDEL', orders, '0-1')
    redis.call('HSET', claims, '', '')
    redis.call('SET', control, '')
    local ring = args[1] .. ':' .. args[6]
    redis.call('HSET', meta, 'ring', ring, 'version', 0, 'stock', 0, 'sold', 0, 'seq', 0, 'tick', 0)
    shard = { ring, 0 }
  end
  refusal = check_ring(shard[1], args[1])
  if refusal then return refusal end

  local given, held = tonumber(args[2]), tonumber(shard[2])
  if not held or held > given + VERSIONS_AHEAD_MAX then held = -1 end
  local is_same = shard[3] == args[3] and shard[4] == args[4] and shard[5] == args[5]
  if given < held or (given == held and is_same) then
    redis.call('HINCRBY', meta, 'tick', 1)
    return { shard[2], shard[3], shard[4], shard[5], shard[1] }
  end
  redis.call('HSET', meta, 'version', args[2], 'state', args[3], 'starts_at', args[4], 'ends_at', args[5])
  return { args[2], args[3], args[4], args[5], shard[1] }
end
