-- Code shared by all operations. Prepended to the library; not an operation.

-- Returns Redis' own clock in milliseconds, as a string. Clocks of nodes never decide anything.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] .. string.format('%03d', math.floor(time[2] / 1000))
end

-- Returns an error when the call was made for another layout or another incarnation of the shard, otherwise nil. A
-- caller with another ring would claim users in the wrong shard, so every operation checks this first. While a sale is
-- being created, its coordinators do not know the incarnations yet: they give the fingerprint alone.
local function check_ring(held, given)
  if not held then
    return redis.error_reply('NOSHARD this shard does not exist')
  end
  if held ~= given and string.sub(held, 1, #given + 1) ~= given .. ':' then
    return redis.error_reply('WRONGRING this shard belongs to ring ' .. held .. ', not ' .. given)
  end
end

-- Returns an error unless the caller gave the control key of the shard, otherwise nil. Redis lets a user call a function
-- only with keys that the user may write. So an operation that asks for this key is closed to users without rights to it.
local function require_control(meta, control)
  if control ~= (string.gsub(meta, ':meta$', ':control')) or control == meta then
    return redis.error_reply('NOTCONTROL this operation needs the control key of the shard')
  end
end

-- Raises a channel into a shard to a cumulative value, and the stock by the difference.
local function raise_channel(meta, ring, channel, cumulative)
  local shard = redis.call('HMGET', meta, 'ring', 'stock', channel)
  local refusal = check_ring(shard[1], ring)
  if refusal then return refusal end

  local stock, before, cumulative = tonumber(shard[2]), tonumber(shard[3] or 0), tonumber(cumulative)
  if cumulative <= before then
    redis.call('HINCRBY', meta, 'tick', 1)
    return { before, stock }
  end
  stock = stock + cumulative - before
  redis.call('HSET', meta, 'stock', stock, channel, cumulative)
  return { cumulative, stock }
end
