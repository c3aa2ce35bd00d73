# Clients outside of the guest that write all the time and note what was acknowledged. Sourced by run.
#
# Each creates ConfigMaps `w-CLIENT-N`, one after the other on one connection, and raises a counter in one of its own,
# `c-CLIENT`, after each. What the API server answered 200 or 201 to is noted on a line: the name and, for a counter, its value.

writer_client() {
    local client=$1 url folder="$work/writer" number=0 batch map count
    url="https://127.0.0.1:$(api_port "$used")/api/v1/namespaces/default/configmaps"
    local same=(-s --fail --max-time 20 --cacert "$folder/ca" --cert "$folder/cert" --key "$folder/key" -o /dev/null)
    # One process a batch: its requests share a connection, and each is noted as its answer comes.
    while [ ! -e "$folder/stop" ]; do
        batch=()
        for _ in 1 2 3 4 5 6 7 8; do
            number=$((number + 1))
            map='{"metadata":{"name":"w-'$client-$number'","labels":{"written":"late"}},"data":{"n":"'$number'"}}'
            count='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c-'$client'","labels":{"written":"late"}},"data":{"n":"'$number'"}}'
            [ ${#batch[@]} = 0 ] || batch+=(--next)
            batch+=("${same[@]}" -H 'Content-Type: application/json' -d "$map" -w "w-$client-$number=%{http_code}\n" "$url")
            batch+=(--next "${same[@]}" -X PATCH -H 'Content-Type: application/apply-patch+yaml' -d "$count" -w "c-$client=%{http_code}=$number\n" "$url/c-$client?fieldManager=writer&force=true")
        done
        # Without --no-buffer a line stays in curl when it is killed.
        curl --no-buffer "${batch[@]}" 2>/dev/null | sed -unE 's/=20[01]=/=/p; s/=20[01]$/=-/p' >>"$folder/noted.$client" || sleep 0.2
    done
}
writer_start() {
    local folder="$work/writer" name
    rm -rf "$folder"
    mkdir -p "$folder"
    for name in certificate-authority=ca client-certificate=cert client-key=key; do
        sed -nE "s/^ *\"?${name%=*}-data\"?: *\"?([^\",]*).*/\1/p" "$work/admin.conf" | head -n 1 | base64 -d >"$folder/${name#*=}"
    done
    writers=()
    for name in 1 2 3; do writer_client "$name" & writers+=($!); done
}
writer_stop() {
    [ ${#writers[@]} != 0 ] || return 0
    touch "$work/writer/stop"
    wait "${writers[@]}" 2>/dev/null || true
    writers=()
}
writers=()
written() { cat "$work"/writer/noted.* 2>/dev/null | wc -l; }
# Everything noted is there: each map, and each counter at what was noted last or later.
nothing_lost() {
    kubectl get configmaps -l written=late -o 'jsonpath={range .items[*]}{.metadata.name}={.data.n}{"\n"}{end}' >"$work/writer/there" || return 1
    awk -F= 'NR == FNR { there[$1] = $2 + 0; next }
        !($1 in there) { print $1 " is lost"; bad = 1; next }
        $2 != "-" && $2 + 0 > there[$1] { print $1 " was " $2 " and is " there[$1]; bad = 1 }
        END { exit bad }' "$work/writer/there" "$work"/writer/noted.*
}
