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
