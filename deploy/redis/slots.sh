# How slots move from primary to primary while their keys are in use. Sourced by cluster.sh, after facts.sh.
#
# A shard's function names all of the shard's keys, and while a slot is halfway a server refuses a call that names a key it
# has and another that it has not. So the keys of a slot travel in one MIGRATE, and the slot is the target's right after.
# In this order every key is at any moment with the one server that gives it out:
#
#   0. the target is replicated: all replicas that the map lists for it follow, and at least one does
#   1. the target will take it in (IMPORTING)
#   2. the source makes no new keys in it (MIGRATING)
#   3. all its keys travel at once; a key that the target has already stops everything
#   4. the source says once more that it leads, makes no new keys and holds none
#   5. the target, then the source, say whose it is now (NODE)
#   6. the target's replicas confirm all that it had written by then
#
# Between 3. and 6. the keys are on one server only: MIGRATE waits for no replica. So moves stop at 0. or 6. at the first slot
# that would be, or is, without a copy.
#
# Killed anywhere before 5., the slot is still the source's, and open: the next run goes on from 1. Killed in 5., the target
# has it already.

# A slot without keys is a matter of some calls: many share a session. So many at a time are open at once.
SLOTS_AT_ONCE=512
# Some servers have each such call wait for their replica: so many sessions wait side by side.
SESSIONS_AT_ONCE=8
# Keys in one MIGRATE; a sale has three a shard.
KEYS_AT_ONCE=10000
# Longest time that a MIGRATE may wait for the target, in ms.
MIGRATE_MS_MAX=5000
# A pair with so many per cent of its share is left alone.
EVEN_WITHIN_PERCENT=2

finish_open_slots() {
  open=$(of_facts '
    $2 == "leaving" || $2 == "entering" { opened[++opens] = $0 }
    END {
      for (i = 1; i <= opens; i++) {
        split(opened[i], fact, " ")
        if (!is_primary(fact[1])) continue
        target = fact[2] == "entering" ? fact[1] : leader_of(named[fact[4]])
        if (fact[3] in to && to[fact[3]] != target) { print "torn", fact[3]; exit }
        to[fact[3]] = target
        holders[fact[3]] = holders[fact[3]] " " fact[1]
      }
      for (slot in to) {
        source = ""
        for (s in slots) if (serves(s, slot)) source = s
        if (source != to[slot]) {
          print "move", source, to[slot], slot
          print "name", to[slot], slot, id[source]
        }
        else { n = split(holders[slot], list, " "); for (h = 1; h <= n; h++) print "close", list[h], slot }
      }
    }
    function serves(s, slot,    n, parts, i, bounds, ends) {
      n = split(slots[s], parts, " ")
      for (i = 1; i <= n; i++) {
        bounds = split(parts[i], ends, "-")
        if (ends[1] + 0 <= slot + 0 && slot + 0 <= ends[bounds] + 0) return 1
      }
    }')
  [ -n "$open" ] || return 0
  case $open in *torn*) fail "slot ${open##*torn } is on its way to two servers. Nothing was changed" ;; esac
  say "finishing $(printf '%s\n' "$open" | grep -c -v '^name') slots that were left halfway"
  # If who gave it was replaced since, the target takes it for nobody's, and nothing in.
  naming=$(printf '%s\n' "$open" | awk '$1 == "name" { print $2, "CLUSTER SETSLOT", $3, "NODE", $4 }')
  [ -z "$naming" ] || carry_out "$naming"
  closing=$(printf '%s\n' "$open" | awk '$1 == "close" { print $2, "CLUSTER SETSLOT", $3, "STABLE" }')
  [ -z "$closing" ] || carry_out "$closing"
  carry_out_moves "$(printf '%s\n' "$open" | sed -n 's/^move //p')"
  wait_until "the cluster to be whole" whole
}

# Brings every pair to its share of the slots, and of those that hold keys: a sale's shards are what the load goes to.
even_out_slots() {
  uneven=$(of_facts '
    END { for (i = 1; i <= pairs; i++) { off = count[leader_of(first[i])] * pairs / 16384 - 1
          if (off * off > ('"$EVEN_WITHIN_PERCENT"' / 100) ^ 2) { print "yes"; exit } } }')
  [ -n "$uneven" ] || return 0
  say "looking for the slots that hold keys"
  filled=$(for server in $(of_facts 'END { for (s in slots) print s }'); do
    filled=$(filled_slots "$server") || exit
    printf '%s\n' "$filled" | sed -n "s/./$server filled &/p"
  done)
  facts=$(printf '%s\n' "$facts" "$filled")
  carry_out_moves "$(plan)"
}

# The slots of a server that hold keys.
filled_slots() {
  own=$(of_facts '
    END { n = split(slots["'"$1"'"], parts, " ")
          for (i = 1; i <= n; i++) {
            bounds = split(parts[i], ends, "-")
            for (slot = ends[1] + 0; slot <= ends[bounds] + 0; slot++) print slot
          } }')
  filled_among "$1" "$own"
}

# filled_among SERVER SLOTS: those of them that hold keys there.
filled_among() {
  [ -n "$2" ] || return 0
  counts=$(for_each "$2" "CLUSTER COUNTKEYSINSLOT &" | ask "$1")
  wrong=$(printf '%s\n' "$counts" | grep -v -x '[0-9]*' | sed -n 1p)
  [ -z "$wrong" ] || fail "$1: $wrong"
  printf '%s\n' "$2" "$counts" | awk -v total="$(printf '%s\n' "$2" | wc -l)" '
    NR <= total { slot[NR] = $0 } NR > total && $0 != 0 { print slot[NR - total] }'
}

# Lines of a source, a target and a slot: as few moves as make all even, slots with keys first, the others from the end.
plan() {
  of_facts '
    $2 == "filled" { filled[$1, $3] = 1; full[$1]++; all++ }
    function give(from, to, slot) { print from, to, slot; gone[slot] = 1; over[from]--; over[to]++ }
    function most(of,    i, s, best) {
      for (i = 1; i <= pairs; i++) { s = leader_of(first[i]); if (of[s] > 0 && (best == "" || of[s] > of[best])) best = s }
      return best
    }
    function pick(from, with_keys,    n, parts, i, bounds, ends, slot) {
      n = split(slots[from], parts, " ")
      for (i = n; i > 0; i--) {
        bounds = split(parts[i], ends, "-")
        for (slot = ends[bounds] + 0; slot >= ends[1] + 0; slot--)
          if (!(slot in gone) && ((from, slot) in filled) == with_keys) return slot
      }
      return -1
    }
    END {
      for (i = 1; i <= pairs; i++) {
        s = leader_of(first[i])
        over[s] = count[s] - (int(16384 * i / pairs) - int(16384 * (i - 1) / pairs))
      }
      for (i = 1; i <= pairs; i++) {
        to = leader_of(first[i])
        while (over[to] < 0 && full[to] + 1 <= all / pairs) {
          best = ""
          for (j = 1; j <= pairs; j++) {
            s = leader_of(first[j])
            if (over[s] > 0 && full[s] > full[to] + 1 && (best == "" || full[s] > full[best])) best = s
          }
          if (best == "" || (slot = pick(best, 1)) < 0) break
          give(best, to, slot); full[best]--; full[to]++
        }
      }
      for (i = 1; i <= pairs; i++) {
        to = leader_of(first[i])
        while (over[to] < 0 && (from = most(over)) != "") {
          if ((slot = pick(from, 0)) < 0) slot = pick(from, 1)
          give(from, to, slot)
        }
      }
    }'
}

# Those with keys one at a time, so that each is open for a moment only; the others many at a time.
carry_out_moves() {
  [ -n "$1" ] || return 0
  changed=yes
  routes=$(printf '%s\n' "$1" | awk '!seen[$1, $2]++ { print $1 "," $2 }')
  for route in $routes; do
    from=${route%,*} to=${route#*,}
    going=$(printf '%s\n' "$1" | awk -v from="$from" -v to="$to" '$1 == from && $2 == to { print $3 }')
    with_keys=$(filled_among "$from" "$going")
    say "moving $(printf '%s\n' "$going" | wc -l) slots from $from to $to, $(printf '%s' "$with_keys" | grep -c .) with keys"
    for slot in $with_keys; do
      move "$from" "$to" "$slot"
    done
    without=$(printf '%s\n' "$going" "$with_keys" | grep . | sort -n | uniq -u)
    while [ -n "$without" ]; do
      move "$from" "$to" "$(printf '%s\n' "$without" | sed "${SLOTS_AT_ONCE}q")"
      without=$(printf '%s\n' "$without" | sed "1,${SLOTS_AT_ONCE}d")
    done
  done
}

# move FROM TO SLOTS
move() {
  wait_until "replicas of $2, before slot $(printf '%s\n' "$3" | sed -n 1p) moves there from $1" replicated "$2"
  carried=
  from_id=$(of_facts 'END { print id["'"$1"'"] }')
  to_id=$(of_facts 'END { print id["'"$2"'"] }')
  for_each "$3" "CLUSTER SETSLOT & IMPORTING $from_id" | tell_side_by_side "$2"
  while :; do
    for_each "$3" "CLUSTER SETSLOT & MIGRATING $to_id" | tell_side_by_side "$1"
    filled=$(filled_among "$1" "$3")
    [ -n "$filled" ] || break
    for slot in $filled; do
      carry_keys "$1" "$2" "$slot"
      carried="${carried:+$carried }$slot"
    done
  done
  for_each "$3" "CLUSTER SETSLOT & NODE $to_id" | tell_side_by_side "$2"
  for_each "$3" "CLUSTER SETSLOT & NODE $to_id" | tell_side_by_side "$1"
  [ -z "$carried" ] || wait_for_copies "$2" "$carried"
}

# Content if all replicas that the map lists for a primary follow it, and at least one does.
replicated() {
  replication=$(replication_of "$1")
  why=$(printf '%s\n' "$replication" | awk '
    $1 == "lists" { listed = $2 } $1 == "follows" { following++ }
    END { if (following < listed || !following) print following + 0, "of", listed + 0, "replicas follow" }')
  [ -z "$why" ]
}

# wait_for_copies PRIMARY SLOTS: until its replicas have all that it has now. WAIT would not do: it speaks for what its own
# connection wrote, and the keys came over another one.
wait_for_copies() {
  written=$(replication_of "$1" | sed -n 's/^wrote //p')
  wait_until "the replicas of $1 to confirm slot $2, which is there now, maybe without a copy" copied "$1" "$written"
}

copied() {
  replicated "$1" || return 1
  why=$(printf '%s\n' "$replication" | awk -v written="$2" '
    $1 == "follows" && $2 < written + 0 { print "a replica is at", $2, "of", written; exit }')
  [ -z "$why" ]
}

# What a primary tells of its copies, a line each: how many replicas its map lists, how far each that follows has
# confirmed, and how much it wrote itself.
replication_of() {
  printf '%s\n' 'CLUSTER NODES' 'INFO replication' | ask "$1" | tr -d '\r' | awk '
    length($1) == 40 && NF >= 8 { primary[$1] = $4; if ($3 ~ /myself/) self = $1 }
    /^slave[0-9]+:/ && /state=online/ { sub(/.*offset=/, ""); sub(/,.*/, ""); print "follows", $0 }
    /^master_repl_offset:/ { sub(/.*:/, ""); print "wrote", $0 }
    END { for (server in primary) if (primary[server] == self) listed++; print "lists", listed + 0 }'
}

# carry_keys FROM TO SLOT. Names of keys stay in the quotes in which the client shows them: whatever bytes they are made of.
carry_keys() {
  keys=$(echo "CLUSTER GETKEYSINSLOT $3 $KEYS_AT_ONCE" | ask "$1" --no-raw | sed -n 's/^ *[0-9]*) //p' | tr '\n' ' ')
  [ -n "$keys" ] || return 0
  address=$(of_facts 'END { print ip["'"$2"'"], port["'"$2"'"] }')
  login="AUTH2 admin $(quoted "$admin_password")"
  answer=$(printf '%s\n' "MIGRATE $address \"\" 0 $MIGRATE_MS_MAX $login KEYS $keys" | ask "$1")
  case $answer in
    # A key may have expired on the way.
    OK | NOKEY) ;;
    *BUSYKEY*) fail "slot $3: a key is both on $1 and on $2, and which is the right one is not known here: $keys" ;;
    *) fail "slot $3 is left halfway from $1 to $2: $answer" ;;
  esac
}

# for_each SLOTS COMMAND: the command for each slot, which stands where it has `&`.
for_each() {
  printf '%s\n' "$1" | sed "s/.*/$2/"
}

# Like `tell`, in as many sessions as are worth it.
tell_side_by_side() {
  commands=$(cat)
  sessions=$(printf '%s\n' "$commands" | awk -v most="$SESSIONS_AT_ONCE" 'END { n = int(NR / 32) + 1; print n < most ? n : most }')
  telling=
  for session in $(seq 0 $((sessions - 1))); do
    printf '%s\n' "$commands" | awk -v all="$sessions" -v this="$session" 'NR % all == this' | tell "$1" &
    telling="$telling $!"
  done
  told=0
  for session in $telling; do
    wait "$session" || told=1
  done
  [ "$told" -eq 0 ] || exit 1
}
