-- Hands out permits for requests of client addresses.
--
-- KEYS  1 the addresses' bucket (only for the way there; it need not exist)
-- ARGV  1 and 2 the limit (ms until a permit comes back, permits), then for each address: its name, permits used
--       without asking, permits wanted
-- Answer  for each address: permits granted, and with none the ms until there is one
-- Errors  none
--
-- Atomic because looking and taking are one step: apart, two nodes would both take the last permits. Writes nothing.
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
