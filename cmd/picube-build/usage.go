package main

import (
	"runtime/metrics"

	"github.com/picube/picube-build/builder/report"
)

// usage is what this process has used so far.
func usage() report.Usage {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return report.Usage{CPU: cpuTime(), Memory: int64(s[0].Value.Uint64() - s[1].Value.Uint64())}
}
