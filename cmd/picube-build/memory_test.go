//go:build cluster || hardware

package main

// memory is what picube-node's daemons need on a node, in KiB: their share of
// what they have in common with others counted once.
const memory = `for p in $(pidof picube-node); do echo $(tr "\0" " " </proc/$p/cmdline | cut -d" " -f2-) ` +
	`$(sed -n "s/^\(Pss\|Pss_Anon\): *//p" /proc/$p/smaps_rollup); done; ` +
	`cat $(printf "/proc/%s/smaps_rollup " $(pidof picube-node)) | sed -n "s/^Pss: *\([0-9]*\) kB/\1/p" | paste -sd+ | sed "s/.*/echo total \$((&))/" | sh`
