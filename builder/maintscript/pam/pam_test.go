package pam

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/maintscript/debconf"
	"github.com/picube/picube-build/builder/maintscript/scripttest"
	"github.com/picube/picube-build/builder/maintscript/shell"
)

const stock = `# head
# here are the per-package modules (the "Primary" block)
auth	x
# here's the fallback if no module succeeds
auth	requisite	pam_deny.so
# and here are more per-package modules (the "Additional" block)
# end of pam-auth-update config
`

// TestUpdate: the expected stacks follow from the program's manual; the judge
// holds a real list's against the real program.
func TestUpdate(t *testing.T) {
	files := map[string]string{
		"/usr/share/pam-configs/unix": "Name: Unix authentication\nDefault: yes\nPriority: 256\nAuth-Type: Primary\nAuth:\n" +
			"\t[success=end default=ignore]\tpam_unix.so nullok try_first_pass\nAuth-Initial:\n\t[success=end default=ignore]\tpam_unix.so nullok\n",
		"/usr/share/pam-configs/ldap": "Name: LDAP\nDefault: yes\nPriority: 128\nConflicts: other\nAuth-Type: Primary\nAuth:\n" +
			"\t[success=end default=ignore]\tpam_ldap.so use_first_pass\n",
		"/usr/share/pam-configs/cap":   "Name: Capabilities\nDefault: yes\nPriority: 0\nAuth-Type: Additional\nAuth:\n\toptional\tpam_cap.so\n",
		"/usr/share/pam-configs/off":   "Name: Off\nDefault: no\nPriority: 1\nAuth-Type: Primary\nAuth:\n\tsufficient\tpam_off.so\n",
		"/usr/share/pam-configs/other": "Name: Other\nDefault: yes\nPriority: 64\nAuth-Type: Primary\nAuth:\n\tsufficient\tpam_other.so\n",
		"/var/lib/dpkg/info/libpam-runtime.templates": "Template: libpam-runtime/profiles\nType: multiselect\nChoices: ${profiles}\nChoices-C: ${profile_names}\nDescription: x\n\n" +
			"Template: libpam-runtime/override\nType: boolean\nDefault: false\nDescription: y\n",
	}
	for _, kind := range types {
		files["/usr/share/pam/common-"+kind] = stock
	}
	tests := map[string]struct {
		script, out, auth, saved string
	}{
		"first": {
			script: "pam-auth-update --root '' --package --force",
			auth:   "auth\t[success=2 default=ignore]\tpam_unix.so nullok\nauth\t[success=1 default=ignore]\tpam_ldap.so use_first_pass\n",
			saved: "Module: unix\n[success=end default=ignore]\tpam_unix.so nullok\nModule: ldap\n[success=end default=ignore]\tpam_ldap.so use_first_pass\n" +
				"Module: cap\noptional\tpam_cap.so\n",
		},
		"an option of the administrator's stays, a removed profile goes": {
			script: "pam-auth-update --package --force; sed -i 's/nullok/debug/' /etc/pam.d/common-auth; rm /usr/share/pam-configs/ldap; pam-auth-update --package",
			auth:   "auth\t[success=1 default=ignore]\tpam_unix.so debug\n",
			saved:  "Module: unix\n[success=end default=ignore]\tpam_unix.so nullok\nModule: cap\noptional\tpam_cap.so\n",
		},
		"a foreign line keeps the file": {
			script: "pam-auth-update --package --force; sed -i '/pam_ldap/i auth required pam_mine.so' /etc/pam.d/common-auth; pam-auth-update --package",
			out:    "pam-auth-update: Local modifications to /etc/pam.d/common-*, not updating.\n",
			auth:   "auth\t[success=2 default=ignore]\tpam_unix.so nullok\nauth required pam_mine.so\nauth\t[success=1 default=ignore]\tpam_ldap.so use_first_pass\n",
			saved: "Module: unix\n[success=end default=ignore]\tpam_unix.so nullok\nModule: ldap\n[success=end default=ignore]\tpam_ldap.so use_first_pass\n" +
				"Module: cap\noptional\tpam_cap.so\n",
		},
		"enabled by hand": {
			script: "pam-auth-update --package --force; pam-auth-update --enable off --disable unix ldap",
			auth:   "auth\tsufficient\tpam_off.so \n",
			saved:  "Module: off\nsufficient\tpam_off.so\nModule: cap\noptional\tpam_cap.so\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tr := scripttest.Tree(t, files)
			if err := tr.MkdirAll("/etc/pam.d", 0o755); err != nil {
				t.Fatal(err)
			}
			store := debconf.NewStore(tr)
			out := scripttest.Run(t, tr, map[string]shell.Command{"pam-auth-update": Command(store)}, test.script)
			if diff := cmp.Diff(test.out, out); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			want := "# head\n" + primary + "\n" + test.auth + fallback + "\nauth\trequisite\tpam_deny.so\n" + additional + "\nauth\toptional\tpam_cap.so \n" + end + "\n"
			got, _ := tr.ReadFile("/etc/pam.d/common-auth")
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Errorf("common-auth (-want +got):\n%s", diff)
			}
			got, _ = tr.ReadFile("/var/lib/pam/auth")
			if diff := cmp.Diff(test.saved, string(got)); diff != "" {
				t.Errorf("saved (-want +got):\n%s", diff)
			}
		})
	}
}
