//go:build long

package version_test

import (
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/debian/version"
)

// TestDpkgRandom asks dpkg about random versions that both sides take as
// valid. Short strings of few letters collide often, which is the point.
func TestDpkgRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	word := func(alphabet string) string {
		b := make([]byte, rnd.IntN(5))
		for i := range b {
			b[i] = alphabet[rnd.IntN(len(alphabet))]
		}
		return string(b)
	}
	random := func() string {
		v := "01"[rnd.IntN(2):][:1] + word("019aZ.+~")
		if rnd.IntN(3) == 0 {
			v += "-" + word("01a+~") + "0"
		}
		if rnd.IntN(4) == 0 {
			v = word("01") + "0:" + v
		}
		return v
	}
	// One shell asks for many pairs: a process per pair is too slow.
	var script strings.Builder
	var pairs [][2]string
	for range 20000 {
		p := [2]string{random(), random()}
		if _, err := version.Parse(p[0]); err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, p)
		script.WriteString("if dpkg --compare-versions '" + p[0] + "' lt '" + p[1] + "'; then echo '<'; " +
			"elif dpkg --compare-versions '" + p[0] + "' eq '" + p[1] + "'; then echo =; else echo '>'; fi\n")
	}
	cmd := exec.Command("sh")
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.Fields(string(out))
	if len(answers) != len(pairs) {
		t.Fatalf("%d answers for %d pairs", len(answers), len(pairs))
	}
	for i, p := range pairs {
		got := "="
		if c := version.Compare(p[0], p[1]); c < 0 {
			got = "<"
		} else if c > 0 {
			got = ">"
		}
		if got != answers[i] {
			t.Errorf("%s %s %s, dpkg says %s", p[0], got, p[1], answers[i])
		}
	}
}
