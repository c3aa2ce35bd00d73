# Sticks with the file that first boot acts on. Sourced by the parts that need them.

# stick NAME: a disk with the label that is looked for, and the file (standard input) on it.
stick() {
    local folder="$work/stick"
    rm -rf "$folder"
    mkdir -p "$folder"
    cat >"$folder/keelson-first-boot.yaml"
    rm -f "$work/$1.stick"
    mke2fs -q -t ext4 -L KEELSON -d "$folder" "$work/$1.stick" 8M
    STICK=(-drive "file=$work/$1.stick,format=raw,if=virtio,readonly=on")
}
# What `systemctl enable keelson-first-boot.service` in an image does, for the disk that is not an image of that kind.
FIRST_BOOT=systemd.wants=keelson-first-boot.service
done_and_told() { machine "$1" sh -c 'keelson first-boot status && systemctl is-active keelson-first-boot.target'; }
