-- What every operation shares. Prepended to the library; not an operation itself.

-- Redis' own clock in milliseconds, as a string: node clocks never decide anything.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] .. string.format('%03d', math.floor(time[2] / 1000))
end

-- The error to answer with when a call was made for another shard layout, or nil. A caller that computed
-- homes on another ring would claim users in the wrong shard, so this comes before anything else.
local function misdirected(held, given)
  if not held then
    return redis.error_reply('NOSHARD this shard does not exist')
  end
  if held ~= given then
    return redis.error_reply('WRONGRING this shard belongs to ring ' .. held .. ', not ' .. given)
  end
end
