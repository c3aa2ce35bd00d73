# The .rpm packages in a root of their own. Sourced by run.

say "the .rpm packages in a root of their own"
root="$work/rpm"
rpms() { rpm --root "$root" --dbpath /rpmdb "$@"; }
mkdir -p "$root"
check "their key is taken" rpms --import "$dist_folder/RPM-GPG-KEY-keelson"
signed() { local said; said=$(rpms --checksig "$1"); echo "$said"; case $said in *"digests signatures OK"*) ;; *) return 1 ;; esac; }
for package in "$dist_folder"/*.rpm; do check "$(basename "$package") is signed with it" signed "$package"; done
cp "$dist_folder"/keelson-images-*.rpm "$work/altered.rpm"
printf x | dd of="$work/altered.rpm" bs=1 seek=40000 conv=notrunc status=none
check "one that was altered is not" not signed "$work/altered.rpm"
check "rpmlint finds no errors" sh -c '! rpmlint --config packaging/rpm/rpmlint.toml "$1"/*.rpm 2>&1 | grep " E: "' - "$dist_folder"
check "they install" rpms --install --nodeps --noscripts --ignorearch "$dist_folder"/*.rpm
# Debian's units lie in /lib, and what only dpkg reads is in no rpm.
deb_files() { dpkg-deb --contents "$1" | sed -nE 's|^-.* \./(lib/systemd/)?|/\1|p' | sed 's|^/lib/|/usr/lib/|' | LC_ALL=C sort; }
same_files() { diff <(deb_files "$dist_folder/$1"_*.deb) <(rpms --query --list "$1" | LC_ALL=C sort); }
check "keelson's files are those of the .deb" same_files keelson
check "keelson-images' files are those of the .deb" same_files keelson-images
check "nothing was changed on the way" rpms --verify --nodeps --noscripts --nouser --nogroup keelson keelson-images
scripts_parse() { rpms --query --queryformat '%{POSTIN}\n%{PREUN}\n%{POSTUN}\n' keelson | sh -n; }
check "their scripts are shell" scripts_parse
