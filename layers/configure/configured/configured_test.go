package configured

import (
	"slices"
	"strings"
	"testing"
)

func TestPending(t *testing.T) {
	const status = `Package: bash
Status: install ok installed
Version: 1

Package: zsh
Status: install ok unpacked
Description: a shell
 Status: of a sort

Package: gone
Status: deinstall ok config-files

Package: apache2
Status: install ok half-configured
`
	got, err := Pending(strings.NewReader(status))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"apache2", "zsh"}; !slices.Equal(got, want) {
		t.Errorf("pending %q, want %q", got, want)
	}
}
