# Facts about the cluster, read before each decision. Sourced by cluster.sh, after servers.sh.
#
# `collect_facts` asks every server for its own view of the cluster and prints one fact per line, beginning with the
# server:
#
#   <server> pair <number> <partner>                the first server of a pair comes first
#   <server> self <id> <role> <primary's id> <ip> <port> <bus port>
#   <server> knows <id> <flags> <ip:port>           another server
#   <server> serves <id> <slots> …                  slots of a server, in this server's view
#   <server> leaving <slot> <id>                    a slot that it gives away
#   <server> entering <slot> <id>                   a slot that it receives
#   <server> keys <number>
#   <server> link <up or down>                      of a replica to its primary
#   <server> closed                                 blocks replicas (see start.sh)
#   <server> state <ok or fail>                     whether it serves requests; a new primary waits for two seconds
#
# Each decision is an awk program over these facts (`of_facts`), so it is based on one consistent reading.

collect_facts() {
  number=0
  for pair in $PAIRS; do
    number=$((number + 1))
    echo "${pair%,*} pair $number ${pair#*,}"
    echo "${pair#*,} pair $number ${pair%,*}"
  done
  for server in $servers; do
    printf '%s\n' 'CLUSTER NODES' 'CLUSTER INFO' DBSIZE 'INFO replication' 'ACL GETUSER replica' | query "$server" |
      facts_of "$server"
  done
}

# Converts the replies of one server to facts.
facts_of() {
  tr -d '\r' | awk -v server="$1" '
    length($1) == 40 && NF >= 8 {
      endpoint = $2
      sub(/,.*/, "", endpoint)
      split(endpoint, halves, "@")
      match(halves[1], /:[0-9]*$/)
      ip = substr(halves[1], 1, RSTART - 1)
      port = substr(halves[1], RSTART + 1)
      if ($3 ~ /myself/) {
        if (ip == "") { ip = server; sub(/:[0-9]*$/, "", ip) }
        print server, "self", $1, ($3 ~ /master/ ? "primary" : "replica"), $4, ip, port, halves[2]
      } else print server, "knows", $1, $3, halves[1]
      ranges = ""
      for (i = 9; i <= NF; i++)
        if ($i !~ /^\[/) ranges = ranges " " $i
        else if ($3 ~ /myself/) {
          gsub(/[][]/, "", $i)
          at = match($i, /-[<>]-/)
          print server, (substr($i, at, 3) == "->-" ? "leaving" : "entering"), substr($i, 1, at - 1), substr($i, at + 3)
        }
      if (ranges != "") print server, "serves", $1 ranges
      next
    }
    /^[0-9]+$/ { print server, "keys", $0 }
    $0 == "off" { print server, "closed" }
    /^cluster_state:/ { sub(/.*:/, ""); print server, "state", $0 }
    /^master_link_status:/ { sub(/.*:/, ""); print server, "link", $0 }
'
}

# of_facts PROGRAM: runs an awk program over `facts`. The facts are loaded into these arrays first.
of_facts() {
  printf '%s\n' "$facts" | awk '
    function count_of(ranges,    n, parts, i, ends, count) {
      n = split(ranges, parts, " ")
      for (i = 1; i <= n; i++) count += split(parts[i], ends, "-") == 2 ? ends[2] - ends[1] + 1 : 1
      return count + 0
    }
    function is_primary(server) { return role[server] == "primary" }
    # The primary of a pair: the server with slots, else the server that is copied, else the first.
    function leader_of(server,    other) {
      other = partner[server]
      if (count[server] || count[other]) return count[server] ? server : other
      if (is_primary(server) != is_primary(other)) return is_primary(server) ? server : other
      return first[pair[server]]
    }
    $2 == "pair" {
      order[++total] = $1; pair[$1] = $3; partner[$1] = $4
      if (!($3 in first)) { first[$3] = $1; pairs++ }
    }
    $2 == "self" {
      id[$1] = $3; role[$1] = $4; primary[$1] = $5; ip[$1] = $6; port[$1] = $7; bus[$1] = $8
      named[$3] = $1; at[$6 ":" $7] = $1
    }
    $2 == "knows" { knows[$1, $3] = $4; endpoint[$3] = $5; flags[$3] = flags[$3] "," $4; witness[$3] = $1; met[$1]++ }
    $2 == "serves" {
      viewer[++views] = $1
      owner[views] = $3
      for (i = 4; i <= NF; i++) ranges[views] = ranges[views] " " $i
      if ($3 == id[$1]) { slots[$1] = ranges[views]; count[$1] = count_of(slots[$1]) }
      else serving[$3] = 1
    }
    $2 == "keys" { keys[$1] = $3 }
    $2 == "link" { link[$1] = $3 }
    $2 == "entering" { entering[$1, $3] = $4 }
    $2 == "closed" { closed[$1] = 1 }
    $2 == "state" { state[$1] = $3 }
    '"$1"
}

# Reads the facts again. Returns 0 when every server has answered.
read_facts() {
  facts=$(collect_facts)
  why=$(of_facts 'END { for (i = 1; i <= total; i++) if (!(order[i] in id)) { print order[i], "did not answer"; exit } }')
  [ -z "$why" ]
}
