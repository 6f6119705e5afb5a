# Moves slots from primary to primary while their keys are in use. Sourced by cluster.sh, after facts.sh.
#
# A shard's function uses all keys of the shard. While a slot is moving, a server refuses a call that uses one key it
# has and another it does not have. Therefore all keys of a slot move in one MIGRATE, and the slot is assigned to the
# target right after it. This order keeps every key available on exactly one server:
#
#   0. The target is replicated: all replicas that the map lists for it follow, and there is at least one.
#   1. The target prepares to receive the slot (IMPORTING).
#   2. The source stops creating keys in it (MIGRATING).
#   3. All its keys move at once. A key that already exists on the target stops the whole script.
#   4. The source confirms that it is a primary, creates no new keys in the slot and holds none.
#   5. The target, then the source, assign the slot to the target (NODE).
#   6. The target's replicas confirm everything that it had written by then.
#
# Between steps 3 and 6 the keys exist on one server only, because MIGRATE waits for no replica. Moves therefore stop
# at step 0 or 6 at the first slot without a copy.
#
# When the script is killed before step 5, the slot still belongs to the source and is open; the next run continues
# with step 1. When it is killed in step 5, the target already has the slot.

# A slot without keys takes a few calls, so many slots share a session. Number of slots that are open at the same
# time.
SLOTS_AT_ONCE=512
# Some servers let each such call wait for their replica, so several sessions run in parallel.
SESSIONS_AT_ONCE=8
# Maximum number of keys in one MIGRATE. A sale has three keys per shard.
KEYS_AT_ONCE=10000
# Maximum time that MIGRATE waits for the target, in ms.
MIGRATE_MS_MAX=5000
# A pair within this percentage of its share is not changed.
BALANCED_WITHIN_PERCENT=2

finish_open_slots() {
  open=$(of_facts '
    $2 == "leaving" || $2 == "entering" { opened[++opens] = $0 }
    END {
      for (i = 1; i <= opens; i++) {
        split(opened[i], fact, " ")
        if (!is_primary(fact[1])) continue
        target = fact[2] == "entering" ? fact[1] : leader_of(named[fact[4]])
        if (fact[3] in to && to[fact[3]] != target) { print "conflict", fact[3]; exit }
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
  case $open in *conflict*) fail "slot ${open##*conflict } is moving to two servers. Nothing was changed" ;; esac
  say "finishing the move of $(printf '%s\n' "$open" | grep -c -v '^name') slots"
  # When the source was replaced in the meantime, the target regards the slot as unserved and imports nothing.
  naming=$(printf '%s\n' "$open" | awk '$1 == "name" { print $2, "CLUSTER SETSLOT", $3, "NODE", $4 }')
  [ -z "$naming" ] || execute "$naming"
  closing=$(printf '%s\n' "$open" | awk '$1 == "close" { print $2, "CLUSTER SETSLOT", $3, "STABLE" }')
  [ -z "$closing" ] || execute "$closing"
  execute_moves "$(printf '%s\n' "$open" | sed -n 's/^move //p')"
  wait_until "the cluster to be healthy" healthy
}

# Gives every pair its share of the slots, and of the slots that hold keys, because the load goes to the shards of
# sales.
balance_slots() {
  is_uneven=$(of_facts '
    END { for (i = 1; i <= pairs; i++) { off = count[leader_of(first[i])] * pairs / 16384 - 1
          if (off * off > ('"$BALANCED_WITHIN_PERCENT"' / 100) ^ 2) { print "yes"; exit } } }')
  [ -n "$is_uneven" ] || return 0
  say "looking for the slots that hold keys"
  filled=$(for server in $(of_facts 'END { for (s in slots) print s }'); do
    filled=$(filled_slots "$server") || exit
    printf '%s\n' "$filled" | sed -n "s/./$server filled &/p"
  done)
  facts=$(printf '%s\n' "$facts" "$filled")
  execute_moves "$(plan)"
}

# Prints the slots of a server that hold keys.
filled_slots() {
  own=$(of_facts '
    END { n = split(slots["'"$1"'"], parts, " ")
          for (i = 1; i <= n; i++) {
            bounds = split(parts[i], ends, "-")
            for (slot = ends[1] + 0; slot <= ends[bounds] + 0; slot++) print slot
          } }')
  filled_among "$1" "$own"
}

# filled_among SERVER SLOTS: prints the given slots that hold keys on the server.
filled_among() {
  [ -n "$2" ] || return 0
  counts=$(for_each "$2" "CLUSTER COUNTKEYSINSLOT &" | query "$1")
  wrong=$(printf '%s\n' "$counts" | grep -v -x '[0-9]*' | sed -n 1p)
  [ -z "$wrong" ] || fail "$1: $wrong"
  printf '%s\n' "$2" "$counts" | awk -v total="$(printf '%s\n' "$2" | wc -l)" '
    NR <= total { slot[NR] = $0 } NR > total && $0 != 0 { print slot[NR - total] }'
}

# Prints lines of source, target and slot: the minimum number of moves that evens out the pairs. Slots with keys come
# first, the others are taken from the end.
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

# Moves slots with keys one at a time, so that each is open only briefly. Moves slots without keys in large groups.
execute_moves() {
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
  moved=
  from_id=$(of_facts 'END { print id["'"$1"'"] }')
  to_id=$(of_facts 'END { print id["'"$2"'"] }')
  for_each "$3" "CLUSTER SETSLOT & IMPORTING $from_id" | send_in_parallel "$2"
  while :; do
    for_each "$3" "CLUSTER SETSLOT & MIGRATING $to_id" | send_in_parallel "$1"
    filled=$(filled_among "$1" "$3")
    [ -n "$filled" ] || break
    for slot in $filled; do
      carry_keys "$1" "$2" "$slot"
      moved="${moved:+$moved }$slot"
    done
  done
  for_each "$3" "CLUSTER SETSLOT & NODE $to_id" | send_in_parallel "$2"
  for_each "$3" "CLUSTER SETSLOT & NODE $to_id" | send_in_parallel "$1"
  [ -z "$moved" ] || wait_for_copies "$2" "$moved"
}

# Returns 0 when all replicas that the map lists for a primary follow it, and there is at least one.
replicated() {
  replication=$(replication_of "$1")
  why=$(printf '%s\n' "$replication" | awk '
    $1 == "lists" { listed = $2 } $1 == "follows" { following++ }
    END { if (following < listed || !following) print following + 0, "of", listed + 0, "replicas follow" }')
  [ -z "$why" ]
}

# wait_for_copies PRIMARY SLOTS: waits until its replicas have everything that it has now. WAIT cannot be used: it
# covers only the writes of its own connection, and the keys arrived over another one.
wait_for_copies() {
  written=$(replication_of "$1" | sed -n 's/^wrote //p')
  wait_until "the replicas of $1 to confirm slot $2, which is on that server now, possibly without a copy" copies_confirm "$1" "$written"
}

copies_confirm() {
  replicated "$1" || return 1
  why=$(printf '%s\n' "$replication" | awk -v written="$2" '
    $1 == "follows" && $2 < written + 0 { print "a replica is at", $2, "of", written; exit }')
  [ -z "$why" ]
}

# Prints the replication state of a primary, one line each: how many replicas its map lists, the offset that each
# following replica has confirmed, and the primary's own offset.
replication_of() {
  printf '%s\n' 'CLUSTER NODES' 'INFO replication' | query "$1" | tr -d '\r' | awk '
    length($1) == 40 && NF >= 8 { primary[$1] = $4; if ($3 ~ /myself/) self = $1 }
    /^slave[0-9]+:/ && /state=online/ { sub(/.*offset=/, ""); sub(/,.*/, ""); print "follows", $0 }
    /^master_repl_offset:/ { sub(/.*:/, ""); print "wrote", $0 }
    END { for (server in primary) if (primary[server] == self) listed++; print "lists", listed + 0 }'
}

# carry_keys FROM TO SLOT: moves all keys of a slot. Key names stay in the quotes that the client prints, so any bytes
# are safe.
carry_keys() {
  keys=$(echo "CLUSTER GETKEYSINSLOT $3 $KEYS_AT_ONCE" | query "$1" --no-raw | sed -n 's/^ *[0-9]*) //p' | tr '\n' ' ')
  [ -n "$keys" ] || return 0
  address=$(of_facts 'END { print ip["'"$2"'"], port["'"$2"'"] }')
  login="AUTH2 admin $(quoted "$admin_password")"
  answer=$(printf '%s\n' "MIGRATE $address \"\" 0 $MIGRATE_MS_MAX $login KEYS $keys" | query "$1")
  case $answer in
    # A key may have expired in the meantime.
    OK | NOKEY) ;;
    *BUSYKEY*) fail "slot $3: a key exists on both $1 and $2, and this script cannot tell which copy is right: $keys" ;;
    *) fail "the move of slot $3 from $1 to $2 is incomplete: $answer" ;;
  esac
}

# for_each SLOTS COMMAND: prints the command once per slot, with the slot in place of `&`.
for_each() {
  printf '%s\n' "$1" | sed "s/.*/$2/"
}

# Like `send`, in several parallel sessions.
send_in_parallel() {
  commands=$(cat)
  sessions=$(printf '%s\n' "$commands" | awk -v most="$SESSIONS_AT_ONCE" 'END { n = int(NR / 32) + 1; print n < most ? n : most }')
  pending=
  for session in $(seq 0 $((sessions - 1))); do
    printf '%s\n' "$commands" | awk -v all="$sessions" -v this="$session" 'NR % all == this' | send "$1" &
    pending="$pending $!"
  done
  told=0
  for session in $pending; do
    wait "$session" || told=1
  done
  [ "$told" -eq 0 ] || exit 1
}
