#!/bin/sh
# Makes a cluster of the servers that PAIRS names, lets it grow, and mends it.
#
#   cluster.sh           makes, grows or mends; on a cluster that is whole it says "nothing to do"
#   cluster.sh status    a line a pair: who leads, who copies, slots, link, keys
#
# Environment:
#   PAIRS             host:port,host:port host:port,host:port …   a pair is one shard of the cluster, whoever of it leads;
#                     of a new pair the first begins as the primary. More pairs than before: the cluster grows.
#   PASSWORDS_FOLDER  with the file `admin` (passwords.sh says what is in it)
#   TLS_FOLDER        with ca.crt; without it nothing is encrypted
#   CLI               the program (valkey-cli; redis-cli does as well)
#   WAIT_LIMIT        longest wait, in seconds, for a server, for all to agree, … (300)
#
# Exit code 0: the cluster is whole. 64: a setting is bad. 1: something is refused, or did not come about in time: one line.
#
# Why it can be run at any time, again and again, and be killed anywhere: each step looks at the servers, and does only what
# is missing. Who leads is never changed. Slots are dealt only where no server holds a key and none was served before. A
# slot moves in the order in which a key is at every moment with somebody who gives it out (slots.sh), and one that was
# left halfway is moved on to where it was going. A server that holds data but has forgotten its cluster, a second
# cluster, members that PAIRS does not name: none of these is touched.
#
# It does not shrink a cluster. Only one may run at a time.

set -eu
# shellcheck source-path=SCRIPTDIR source=passwords.sh
. "$(dirname "$0")/passwords.sh"
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "$0")/servers.sh"
# shellcheck source-path=SCRIPTDIR source=facts.sh
. "$(dirname "$0")/facts.sh"
# shellcheck source-path=SCRIPTDIR source=slots.sh
. "$(dirname "$0")/slots.sh"

make() {
  changed=
  wait_for_servers
  wait_until "every server's view" look_around
  refuse_the_unsafe
  wait_until "all servers to know each other" acquainted
  deal_slots
  wait_until "the only copies of data to lead" no_orphans
  let_replicas_in
  follow_primaries
  forget_lost_selves
  wait_until "the cluster to be whole" whole
  finish_open_slots
  even_out_slots
  wait_until "the cluster to be whole" whole
  if [ -n "$changed" ]; then say "the cluster is whole"; else say "nothing to do"; fi
}

# What nobody but a person can decide.
refuse_the_unsafe() {
  trouble=$(of_facts '
    function found(what) { print what; exit }
    END {
      for (i = 1; i <= total; i++) {
        s = order[i]
        if (!met[s] && (keys[s] || count[s]))
          found(s (keys[s] ? " holds " keys[s] " keys" : " serves slots") " but knows no other server: its nodes.conf is " \
                "lost. Restore it; or empty its data folder, if its partner " partner[s] " has everything")
        if (count[s] && count[partner[s]])
          found(s " and " partner[s] " both serve slots: they are no pair")
        if (role[s] == "replica" && primary[s] != id[partner[s]] && primary[s] in named)
          found(s " copies " named[primary[s]] ", which is not its partner")
        for (j = 1; j < i; j++)
          if (met[s] && met[order[j]] && (keys[s] || count[s]) && (keys[order[j]] || count[order[j]]) &&
              !((s, id[order[j]]) in knows))
            found(s " and " order[j] " hold data but do not know each other: these are two clusters")
      }
      for (who in endpoint)
        if (!(who in named) && !(endpoint[who] in at) && flags[who] !~ /handshake|noaddr/)
          found(witness[who] " knows " endpoint[who] " (" who "), which PAIRS does not name; this only lets a cluster grow")
    }')
  [ -z "$trouble" ] || fail "$trouble. Nothing was changed"
}

# Introduces servers that do not know each other; content once there are none.
acquainted() {
  look_around || return 1
  meetings=$(of_facts '
    END {
      for (i = 1; i <= total; i++) for (j = i + 1; j <= total; j++) {
        s = order[i]; other = order[j]
        if (knows[s, id[other]] ~ /^$|handshake/ || knows[other, id[s]] ~ /^$|handshake/)
          print s, "CLUSTER MEET", ip[other], port[other], bus[other]
      }
    }')
  [ -n "$meetings" ] || return 0
  carry_out "$meetings"
  why="$(printf '%s\n' "$meetings" | wc -l) pairs do not know each other yet"
  return 1
}

# A server that came back with an empty folder has a new id; what it was before is dead and serves nothing any more.
forget_lost_selves() {
  ghosts=$(of_facts '
    END {
      for (i = 1; i <= total; i++) for (who in endpoint)
        if ((order[i], who) in knows && !(who in named) && !serving[who] && flags[who] ~ /fail|noaddr/)
          print order[i], "CLUSTER FORGET", who
    }')
  [ -z "$ghosts" ] || carry_out "$ghosts"
}

# Deals what nobody serves, on a cluster that is not made yet: no server holds a key, and no one else ever served a slot.
deal_slots() {
  deals=$(of_facts '
    END {
      for (i = 1; i <= total; i++) if (keys[order[i]]) exit
      for (v = 1; v <= views; v++) {
        if (!(owner[v] in named)) exit
        n = split(ranges[v], parts, " ")
        for (p = 1; p <= n; p++) {
          ends[2] = ""
          split(parts[p], ends, "-")
          for (slot = ends[1] + 0; slot <= (ends[2] == "" ? ends[1] : ends[2]) + 0; slot++) served[slot] = 1
        }
      }
      slot = 0
      for (i = 1; i <= pairs; i++) {
        s = leader_of(first[i])
        lacks = int(16384 * i / pairs) - int(16384 * (i - 1) / pairs) - count[s]
        deal = ""
        while (lacks > 0 && slot < 16384) {
          while (slot < 16384 && slot in served) slot++
          begin = slot
          while (slot < 16384 && !(slot in served) && lacks > 0) { slot++; lacks-- }
          if (slot > begin) deal = deal " " begin " " slot - 1
        }
        if (deal != "") print s, "CLUSTER ADDSLOTSRANGE" deal
      }
    }')
  [ -z "$deals" ] || carry_out "$deals"
}

# A primary that came back with an empty folder is another server to the cluster, and its replica has the only copy of the
# data until it leads. It must not be told to copy the empty one.
no_orphans() {
  look_around || return 1
  why=$(of_facts '
    END {
      for (i = 1; i <= total; i++) {
        s = order[i]
        if (role[s] == "replica" && primary[s] != id[partner[s]] && keys[s]) {
          print s " has the only copy of its pair and does not lead; if it stays so, tell it CLUSTER FAILOVER TAKEOVER"
          exit
        }
      }
    }')
  [ -z "$why" ]
}

# A server that was never taken in is closed to replicas: one with the only copy of the data could be copying its address.
let_replicas_in() {
  openings=$(of_facts 'END { for (i = 1; i <= total; i++) if (order[i] in closed) print order[i], "ACL SETUSER replica on" }')
  [ -z "$openings" ] || carry_out "$openings"
}

# Has each server that serves nothing copy its partner.
follow_primaries() {
  followers=$(of_facts '
    END {
      for (i = 1; i <= total; i++) {
        s = order[i]; leader = leader_of(s)
        if (s != leader && !(role[s] == "replica" && primary[s] == id[leader])) print s, "CLUSTER REPLICATE", id[leader]
      }
    }')
  [ -z "$followers" ] || carry_out "$followers"
}

# Every slot is served, by the same pair in every view, and every pair has a replica with its primary's data.
# Whoever is told so may write at once. A slot that a server is getting is nobody's to it once who gave it is replaced: it
# waits to be told (finish_open_slots).
whole() {
  look_around || return 1
  why=$(of_facts '
    function lacking(what) { print what; exit }
    END {
      for (i = 1; i <= total; i++) {
        s = order[i]
        if (role[s] == "replica" ? link[s] != "up" : is_primary(partner[s]))
          lacking(role[s] == "replica" ? s " has not its primary'"'"'s data yet" : s " and its partner both lead")
      }
      for (v = 1; v <= views; v++) {
        if (!(owner[v] in named)) lacking(ranges[v] " were served by " endpoint[owner[v]] ", and it is gone")
        n = split(ranges[v], parts, " ")
        for (p = 1; p <= n; p++) {
          bounds = split(parts[p], ends, "-")
          for (slot = ends[1] + 0; slot <= ends[bounds] + 0; slot++) {
            if (slot in by && by[slot] != pair[named[owner[v]]]) lacking("slot " slot " is not in the same pair for all")
            by[slot] = pair[named[owner[v]]]
            delete entering[viewer[v], slot]
            seen[viewer[v]]++
          }
        }
      }
      for (end in entering) { split(end, ends, SUBSEP); seen[ends[1]]++ }
      for (i = 1; i <= total; i++)
        if (seen[order[i]] != 16384) lacking(order[i] " knows of " 16384 - seen[order[i]] " slots that nobody serves")
      for (i = 1; i <= total; i++) if (state[order[i]] != "ok") lacking(order[i] " does not serve yet")
    }')
  [ -z "$why" ]
}

# carry_out COMMANDS: lines of a server and what to tell it.
carry_out() {
  changed=yes
  for server in $servers; do
    commands=$(printf '%s\n' "$1" | awk -v server="$server" '$1 == server { print substr($0, length($1) + 2) }')
    [ -n "$commands" ] || continue
    printf '%s\n' "$commands" | while read -r command; do say "$server: $command"; done
    printf '%s\n' "$commands" | tell "$server" || exit
  done
}

status() {
  wait_until "every server's view" look_around
  of_facts '
    BEGIN { line = "%-4s  %-28s  %-28s  %6s  %-4s  %9s\n"; printf line, "pair", "primary", "replica", "slots", "link", "keys" }
    END {
      for (i = 1; i <= pairs; i++) {
        leader = leader_of(first[i]); other = partner[leader]
        copies = role[other] == "replica" && primary[other] == id[leader]
        printf line, i, leader, copies ? other : "-", count[leader] + 0, copies ? link[other] : "-", keys[leader] + 0
      }
    }'
}

prepare_servers
admin_password=$(password_of admin)
log_in_with "$admin_password"
case ${1-make} in
  make) make ;;
  status) status ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit 64 ;;
esac
