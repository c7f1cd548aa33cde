package blueprint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

var (
	// RFC 1123 section 2.1, one label; capitals are left out because
	// Kubernetes and mDNS compare without case.
	hostLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	// Debian Policy 5.6.7.
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	// useradd(8), as Debian's adduser restricts it.
	userName     = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	passwordHash = regexp.MustCompile(`^\$(y|gy|7|2[aby]|6|5)\$[^\s:]+$`)
	// dev_valid_name in Linux, without what confuses configuration files.
	interfaceName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9._-]{0,14}$`)
	shellPath     = regexp.MustCompile(`^(/[a-zA-Z0-9._+-]+)+$`)
	httpURL       = regexp.MustCompile(`^https?://[a-zA-Z0-9.\[\]:_-]+(/[^\s?#]*)?$`)
	labelKey      = regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	labelValue    = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$`)
	taint         = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._/-]*(=[a-zA-Z0-9._-]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$`)
)

// systemUsers are the accounts of Debian's base-passwd.
var systemUsers = []string{"_apt", "backup", "bin", "daemon", "games", "irc", "list", "lp", "mail", "man",
	"news", "nobody", "proxy", "root", "sync", "sys", "uucp", "www-data"}

// The functions below return what is wrong, as a sentence, or "".

func checkHostname(what, name string) string {
	if hostLabel.MatchString(name) {
		return ""
	}
	if lower := strings.ToLower(name); hostLabel.MatchString(lower) {
		return fmt.Sprintf("%q can't be a %s name: capitals aren't allowed. Did you mean %q?", name, what, lower)
	}
	return fmt.Sprintf("%q can't be a %s name: use up to 63 of a-z, 0-9 and '-', with no '-' at either end.", name, what)
}

func checkPackage(name string) string {
	switch {
	case packageName.MatchString(name):
		return ""
	case strings.ContainsAny(name, "=<>"):
		return fmt.Sprintf("%q can't name a version: the lock file beside the blueprint holds the versions.", name)
	}
	return fmt.Sprintf("%q can't be a package of Debian: use a-z, 0-9, '+', '-' and '.'.", name)
}

func checkUser(name string) string {
	switch {
	case !userName.MatchString(name):
		return fmt.Sprintf("%q can't be a user name: use up to 32 of a-z, 0-9, '-' and '_', not beginning with a digit or '-'.", name)
	case slices.Contains(systemUsers, name):
		return fmt.Sprintf("%q is a user of the system itself. Choose another name.", name)
	}
	return ""
}

func checkKey(key string) string {
	if strings.Contains(key, "PRIVATE KEY") {
		return "This is a private key. Give the public one, the file that ends in .pub."
	}
	_, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(key))
	if err != nil {
		return "This isn't a line of authorized_keys: a kind (ssh-ed25519), the key, and perhaps a comment."
	}
	if strings.TrimSpace(string(rest)) != "" {
		return "This holds more than one line. Give each key as an element of its own."
	}
	return ""
}
