package debconf

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/maintscript/scripttest"
)

const templates = `Template: p/color
Type: select
Choices: red, green\, dark, ${more}
Choices-de.UTF-8: rot, gruen, ${more}
Default: red
Description: Which color?
 It matters
 a lot.
 .
   as is

Template: p/secret
Type: password
Description: Say it.

Template: p/note
Type: error
Description: Bad.
`

// TestProtocol: the answers follow debconf-devel(7) and debconf 1.5.91's texts.
func TestProtocol(t *testing.T) {
	tests := map[string]struct{ requests, answers string }{
		"version":  {"VERSION 2.0\nVERSION 3.0", "0 2.0\n30 Version too low (3.0)\n"},
		"capb":     {"CAPB backup", "0 multiselect escape\n"},
		"get, set": {"GET p/color\nSET p/color blue sky\nGET p/color\nRESET p/color\nGET p/color", "0 red\n0 value set\n0 blue sky\n0\n0 red\n"},
		"an answer that is no choice": {
			"SET p/color blue\nINPUT high p/color\nGO\nGET p/color", "0 value set\n30 question skipped\n0 ok\n0 red\n"},
		"variables":       {"SUBST p/color more blue, grey\nMETAGET p/color choices", "0\n0 red, green\\, dark, blue, grey\n"},
		"descriptions":    {"METAGET p/color description\nMETAGET p/color none\nMETAGET p/color extended_description", "0 Which color?\n0 \n0 It matters a lot.\n"},
		"flags":           {"FGET p/color seen\nFSET p/color seen true\nFGET p/color seen", "0 false\n0 true\n0 true\n"},
		"another of kind": {"REGISTER p/color p/hat\nGET p/hat\nSET p/hat green\nGET p/color\nUNREGISTER p/hat\nGET p/hat", "0\n0 red\n0 value set\n0 red\n0\n10 p/hat doesn't exist\n"},
		"escaped":         {"CAPB escape\nSET p/color a\\nb\nGET p/color", "0 multiselect escape\n0 value set\n1 a\\nb\n"},
		"unknown":         {"GET p/none\nJUMP\nGET", "10 p/none doesn't exist\n20 Unsupported command \"jump\" (full line was \"JUMP\") received from confmodule.\n20 Incorrect number of arguments\n"},
		"stop":            {"GET p/color\nSTOP\nGET p/color", "0 red\n"},
		"purge":           {"PURGE\nGET p/color", "0\n10 p/color doesn't exist\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tr := scripttest.Tree(t, map[string]string{"/templates": templates})
			s := NewStore(tr)
			got := scripttest.Run(t, tr, s.Commands(), "{ echo X_LOADTEMPLATEFILE /templates; cat <<'E'\n"+test.requests+"\nE\n} | debconf-communicate p")
			if diff := cmp.Diff("0\n"+test.answers, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	tr := scripttest.Tree(t, map[string]string{"/templates": templates})
	s := NewStore(tr)
	out := scripttest.Run(t, tr, s.Commands(), `
printf '%s\n' 'X_LOADTEMPLATEFILE /templates' 'SET p/color red' 'FSET p/color seen true' 'SUBST p/color more blue' 'SET p/secret x' | debconf-communicate p >/dev/null
echo 'q q/extra boolean true' | debconf-set-selections
debconf-show p`)
	if diff := cmp.Diff("* p/color: red\n  p/note: \n", out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want := []string{
		"/var/cache/debconf/config.dat 644 Name: p/color|Template: p/color|Value: red|Owners: p|Flags: seen|Variables:| more = blue||" +
			"Name: p/note|Template: p/note|Owners: p||Name: q/extra|Template: q/extra|Value: true|Owners: q|Flags: seen|",
		"/var/cache/debconf/passwords.dat 600 Name: p/secret|Template: p/secret|Value: x|Owners: p|",
	}
	if diff := cmp.Diff(want, scripttest.Dump(tr, configFile, passwordsFile)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	text, err := tr.ReadFile(templatesFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"Choices-de.utf-8: rot, gruen, ${more}\n", `Extended_description: It matters a lot.\n\n  as is` + "\n", "Owners: p/color\n",
	} {
		if !strings.Contains(string(text), line) {
			t.Errorf("templates.dat lacks %q:\n%s", line, text)
		}
	}
	again := NewStore(tr)
	if err := again.load(); err != nil {
		t.Fatal(err)
	}
	if got := again.value("p/color"); got != "red" {
		t.Errorf("read again: %q", got)
	}
}

func TestTemplateErrors(t *testing.T) {
	for text, want := range map[string]string{
		"Template: a\nType: string\nType: note\n": `template has the field "type" twice`,
		"Type: string\n":                        `template "" has no name or no type`,
		"Template: a\nType: string\nno field\n": `template has the line "no field"`,
	} {
		s := NewStore(scripttest.Tree(t, nil))
		if err := s.load(); err != nil {
			t.Fatal(err)
		}
		if err := s.loadTemplates(text, "p"); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
}

func FuzzTemplates(f *testing.F) {
	f.Add(templates)
	f.Fuzz(func(t *testing.T, text string) {
		tr := scripttest.Tree(t, nil)
		s := NewStore(tr)
		if err := s.load(); err != nil {
			t.Fatal(err)
		}
		if s.loadTemplates(text, "p") != nil {
			return
		}
		if err := s.save(); err != nil {
			t.Fatal(err)
		}
		if err := NewStore(tr).load(); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}
