-- Grants permits for requests of client addresses.
--
-- KEYS  1 the bucket of the addresses (only selects the slot; the key need not exist)
-- ARGV  1 and 2 the limit (ms until a permit comes back, permits), then for each address: its name, permits used
--       without asking, permits wanted
-- Answer  for each address: permits granted, and ms until the next permit when none was granted
-- Errors  none
--
-- Atomic because permits are checked and taken in one step; otherwise two nodes could both take the last ones. Writes
-- nothing.
local permits_of = rate_limit()
local function admit(_, args)
  local now, interval, burst = tonumber(now_ms()), tonumber(args[1]), tonumber(args[2])
  local answers = {}
  for arg = 3, #args, 3 do
    local granted, wait = permits_of(args[arg], tonumber(args[arg + 1]), tonumber(args[arg + 2]), interval, burst, now)
    answers[#answers + 1], answers[#answers + 2] = granted, wait
  end
  return answers
end
