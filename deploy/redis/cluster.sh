#!/bin/sh
# Creates a cluster from the servers in PAIRS, grows it, and repairs it.
#
#   cluster.sh           create, grow or repair; on a healthy cluster it prints "nothing to do"
#   cluster.sh status    one line per pair: primary, replica, slots, link, keys
#
# Environment:
#   PAIRS             host:port,host:port host:port,host:port …   A pair is one shard of the cluster. Either server may be
#                     the primary; in a new pair it is the first one. More pairs than before: the cluster grows.
#   PASSWORDS_FOLDER  contains the file `admin` (format: see passwords.sh)
#   TLS_FOLDER        contains ca.crt; without it connections are not encrypted
#   CLI               the client program (default valkey-cli; redis-cli works as well)
#   WAIT_LIMIT        maximum time to wait for each condition, in seconds (default 300)
#
# Exit codes: 0 when the cluster is healthy. 64 when a setting is invalid. 1 when the script refuses to act or a
# condition is not met in time; it prints one line.
#
# The script can be run at any time, repeatedly, and killed at any point: each step reads the servers' state and does
# only what is missing. It never changes which server of a pair is the primary. It assigns slots only when no server
# holds a key and no other server ever served a slot. Slots move in an order that keeps every key available on exactly
# one server (slots.sh), and the move of an open slot is continued to its target. The script does not touch a server
# that holds data but has forgotten its cluster, a second cluster, or members that are not in PAIRS.
#
# It does not shrink a cluster. Only one instance may run at a time.

set -eu
# shellcheck source-path=SCRIPTDIR source=passwords.sh
. "$(dirname "$0")/passwords.sh"
# shellcheck source-path=SCRIPTDIR source=servers.sh
. "$(dirname "$0")/servers.sh"
# shellcheck source-path=SCRIPTDIR source=facts.sh
. "$(dirname "$0")/facts.sh"
# shellcheck source-path=SCRIPTDIR source=slots.sh
. "$(dirname "$0")/slots.sh"

make_cluster() {
  changed=
  wait_for_servers
  wait_until "every server's view" read_facts
  refuse_unsafe_state
  wait_until "all servers to know each other" all_introduced
  assign_slots
  wait_until "the only copies of data to be promoted" only_copies_lead
  allow_replicas
  follow_primaries
  forget_dead_nodes
  wait_until "the cluster to be healthy" healthy
  finish_open_slots
  balance_slots
  wait_until "the cluster to be healthy" healthy
  if [ -n "$changed" ]; then say "the cluster is healthy"; else say "nothing to do"; fi
}

# Refuses states that only a person can resolve.
refuse_unsafe_state() {
  problem=$(of_facts '
    function refuse(reason) { print reason; exit }
    END {
      for (i = 1; i <= total; i++) {
        s = order[i]
        if (!met[s] && (keys[s] || count[s]))
          refuse(s (keys[s] ? " holds " keys[s] " keys" : " serves slots") " but knows no other server: its nodes.conf is " \
                "lost. Restore it; or empty its data folder, if its partner " partner[s] " has everything")
        if (count[s] && count[partner[s]])
          refuse(s " and " partner[s] " both serve slots: they are not a pair")
        if (role[s] == "replica" && primary[s] != id[partner[s]] && primary[s] in named)
          refuse(s " copies " named[primary[s]] ", which is not its partner. If it belongs to this pair, empty its data " \
                "folder: with other data it could be promoted")
        for (j = 1; j < i; j++)
          if (met[s] && met[order[j]] && (keys[s] || count[s]) && (keys[order[j]] || count[order[j]]) &&
              !((s, id[order[j]]) in knows))
            refuse(s " and " order[j] " hold data but do not know each other: these are two clusters")
      }
      for (node in endpoint)
        if (!(node in named) && !(endpoint[node] in at) && flags[node] !~ /handshake|noaddr/)
          refuse(witness[node] " knows " endpoint[node] " (" node "), which PAIRS does not name; this script only grows a cluster")
    }')
  [ -z "$problem" ] || fail "$problem. Nothing was changed"
}

# Introduces servers that do not know each other. Returns 0 when all know each other.
all_introduced() {
  read_facts || return 1
  introductions=$(of_facts '
    END {
      for (i = 1; i <= total; i++) for (j = i + 1; j <= total; j++) {
        s = order[i]; other = order[j]
        if (knows[s, id[other]] ~ /^$|handshake/ || knows[other, id[s]] ~ /^$|handshake/)
          print s, "CLUSTER MEET", ip[other], port[other], bus[other]
      }
    }')
  [ -n "$introductions" ] || return 0
  execute "$introductions"
  why="$(printf '%s\n' "$introductions" | wc -l) pairs of servers do not know each other yet"
  return 1
}

# Forgets dead nodes. A server that came back with an empty folder has a new id, and its old id serves nothing.
forget_dead_nodes() {
  dead_nodes=$(of_facts '
    END {
      for (i = 1; i <= total; i++) for (node in endpoint)
        if ((order[i], node) in knows && !(node in named) && !serving[node] && flags[node] ~ /fail|noaddr/)
          print order[i], "CLUSTER FORGET", node
    }')
  [ -z "$dead_nodes" ] || execute "$dead_nodes"
}

# Assigns unserved slots in a cluster that is being created: no server holds a key, and no other server ever served a
# slot.
assign_slots() {
  assignments=$(of_facts '
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
  [ -z "$assignments" ] || execute "$assignments"
}

# Returns 0 when no replica holds the only copy of its pair. A primary that came back with an empty folder is a new
# server to the cluster. Until its replica is promoted, that replica has the only copy of the data and must not be
# told to copy the empty server. A replica with data whose primary serves no slots may follow another one by itself, or
# has old data: it is not told to follow, because it could be promoted before it has copied.
only_copies_lead() {
  read_facts || return 1
  why=$(of_facts '
    END {
      for (i = 1; i <= total; i++) {
        s = order[i]
        if (role[s] == "replica" && primary[s] != id[partner[s]] && keys[s]) {
          if (serving[primary[s]])
            print s " has the only copy of its pair and is not the primary; if this persists, run CLUSTER FAILOVER TAKEOVER on it"
          else
            print s " has the data of a server that serves no slots any more; if this persists, empty its data folder"
          exit
        }
      }
    }')
  [ -z "$why" ]
}

# Enables the user `replica` on servers that block replicas. start.sh disables it on a server that was never part of a
# cluster, because a replica with the only copy of the data could be copying from that address.
allow_replicas() {
  permissions=$(of_facts 'END { for (i = 1; i <= total; i++) if (order[i] in closed) print order[i], "ACL SETUSER replica on" }')
  [ -z "$permissions" ] || execute "$permissions"
}

# Makes each server without slots a replica of its partner.
follow_primaries() {
  followers=$(of_facts '
    END {
      for (i = 1; i <= total; i++) {
        s = order[i]; leader = leader_of(s)
        if (s != leader && !(role[s] == "replica" && primary[s] == id[leader])) print s, "CLUSTER REPLICATE", id[leader]
      }
    }')
  [ -z "$followers" ] || execute "$followers"
}

# Returns 0 when every slot is served by the same pair in every server's view, and every pair has a replica with its
# primary's data. Clients may write as soon as this holds. Exception: the slot of a move whose source was replaced is
# not served by any server until the move is finished (finish_open_slots).
healthy() {
  read_facts || return 1
  why=$(of_facts '
    function report(reason) { print reason; exit }
    END {
      for (i = 1; i <= total; i++) {
        s = order[i]
        if (role[s] == "replica" ? link[s] != "up" : is_primary(partner[s]))
          report(role[s] == "replica" ? s " does not have its primary'"'"'s data yet" : s " and its partner are both primaries")
      }
      for (v = 1; v <= views; v++) {
        if (!(owner[v] in named)) report("slots" ranges[v] " were served by " endpoint[owner[v]] ", which is gone")
        n = split(ranges[v], parts, " ")
        for (p = 1; p <= n; p++) {
          bounds = split(parts[p], ends, "-")
          for (slot = ends[1] + 0; slot <= ends[bounds] + 0; slot++) {
            if (slot in by && by[slot] != pair[named[owner[v]]]) report("servers disagree about the pair of slot " slot)
            by[slot] = pair[named[owner[v]]]
            delete entering[viewer[v], slot]
            seen[viewer[v]]++
          }
        }
      }
      for (end in entering) { split(end, ends, SUBSEP); seen[ends[1]]++ }
      for (i = 1; i <= total; i++)
        if (seen[order[i]] != 16384) report(order[i] " knows of " 16384 - seen[order[i]] " unserved slots")
      for (i = 1; i <= total; i++) if (state[order[i]] != "ok") report(order[i] " does not serve requests yet")
    }')
  [ -z "$why" ]
}

# execute COMMANDS: sends lines of the form "server command" to the servers.
execute() {
  changed=yes
  for server in $servers; do
    commands=$(printf '%s\n' "$1" | awk -v server="$server" '$1 == server { print substr($0, length($1) + 2) }')
    [ -n "$commands" ] || continue
    printf '%s\n' "$commands" | while read -r command; do say "$server: $command"; done
    printf '%s\n' "$commands" | send "$server" || exit
  done
}

status() {
  wait_until "every server's view" read_facts
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
  make) make_cluster ;;
  status) status ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit 64 ;;
esac
