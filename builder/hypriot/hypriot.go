// Package hypriot turns the settings of a HypriotOS card into a blueprint:
// device-init.yaml of releases up to 1.x, and cloud-init's user-data, which
// flash(1) writes since 1.9.
//
// Sources: github.com/hypriot/device-init, github.com/hypriot/flash,
// cloudinit.readthedocs.io, "Module reference".
//
// Not supported: what has no counterpart in a blueprint (commands, files,
// Docker's containers). Nothing is dropped in silence: it is in the notes.
package hypriot

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"gopkg.in/yaml.v3"
)

// MaxSize bounds a file of settings.
const MaxSize = 1 << 20

// Result is what came of a file.
type Result struct {
	Blueprint []byte
	// Variables are the secrets, for a file of its own: -var-file. Empty if
	// there are none.
	Variables []byte
	// Notes say what was not taken over, and why; sorted.
	Notes []string
}

// settings is what both kinds of files say.
type settings struct {
	hostname, zone, locale string
	wifi                   []network
	users                  []user
	packages               []string
	notes                  []string
}

type network struct{ ssid, password, country string }

type user struct {
	name, shell  string
	keys, groups []string
	sudo         bool
	hash         string
}

// Import reads a device-init.yaml or a user-data.
func Import(text []byte) (Result, error) {
	if len(text) > MaxSize {
		return Result{}, fmt.Errorf("cannot read %d bytes of settings, the limit is %d", len(text), MaxSize)
	}
	var top map[string]yaml.Node
	if err := yaml.Unmarshal(text, &top); err != nil {
		return Result{}, fmt.Errorf("cannot read it as YAML: %w", err)
	}
	if len(top) == 0 {
		return Result{}, errors.New("cannot find any settings in it")
	}
	s := &settings{}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(top)) {
		node := top[key]
		if err := s.read(key, &node); err != nil {
			errs = append(errs, fmt.Errorf("line %d: %s: %w", node.Line, key, err))
		}
	}
	if len(errs) > 0 {
		return Result{}, errors.Join(errs...)
	}
	return s.result(), nil
}

func (s *settings) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// read takes one setting over. HypriotOS wrote many values in quotes, so that
// booleans are texts too.
func (s *settings) read(key string, node *yaml.Node) error {
	switch key {
	case "hostname":
		return node.Decode(&s.hostname)
	case "timezone":
		return node.Decode(&s.zone)
	case "locale":
		return node.Decode(&s.locale)
	case "packages":
		return s.readPackages(node)
	case "wifi":
		return s.readWiFi(node)
	case "users":
		return s.readUsers(node)
	case "write_files":
		return s.readFiles(node)
	case "manage_etc_hosts", "preserve_hostname", "resize_rootfs", "growpart", "package_update", "package_upgrade", "package_reboot_if_required", "ntp", "apt_preserve_sources_list":
		return nil // cards do so, or have no need to
	case "clusterlab", "rancher":
		s.note("%s: use a kubernetes block instead", key)
	case "docker":
		s.note("docker: name images in a kubernetes block; containers become manifests there")
	case "runcmd", "bootcmd", "commands":
		s.note("%s: commands are not run; ask for packages and units instead", key)
	default:
		s.note("%s: a blueprint has nothing like it", key)
	}
	return nil
}

func (s *settings) readPackages(node *yaml.Node) error {
	var list []yaml.Node
	if err := node.Decode(&list); err != nil {
		return err
	}
	for _, n := range list {
		if n.Kind != yaml.ScalarNode {
			s.note("packages: a version cannot be asked for; the lock holds versions")
			continue
		}
		s.packages = append(s.packages, n.Value)
	}
	return nil
}

func (s *settings) readWiFi(node *yaml.Node) error {
	var wifi struct {
		Interfaces map[string]struct{ SSID, Password string }
	}
	if err := node.Decode(&wifi); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(wifi.Interfaces)) {
		i := wifi.Interfaces[name]
		s.wifi = append(s.wifi, network{ssid: i.SSID, password: i.Password})
	}
	return nil
}

func (s *settings) readUsers(node *yaml.Node) error {
	var list []yaml.Node
	if err := node.Decode(&list); err != nil {
		return err
	}
	for _, n := range list {
		if n.Kind == yaml.ScalarNode {
			s.note("users: the distribution's default user is not made")
			continue
		}
		var u struct {
			Name     string    `yaml:"name"`
			Shell    string    `yaml:"shell"`
			Groups   yaml.Node `yaml:"groups"`
			Sudo     yaml.Node `yaml:"sudo"`
			Keys     []string  `yaml:"ssh_authorized_keys"`
			OldKeys  []string  `yaml:"ssh-authorized-keys"`
			Password string    `yaml:"plain_text_passwd"`
			Hash     string    `yaml:"passwd"`
		}
		if err := n.Decode(&u); err != nil {
			return err
		}
		if u.Password != "" {
			s.note("users: the password of %s stands there readable; make a hash of it with mkpasswd and give it as password_hash", u.Name)
		}
		made := user{name: u.Name, shell: u.Shell, keys: append(u.Keys, u.OldKeys...), hash: u.Hash,
			sudo: u.Sudo.Kind != 0 && u.Sudo.Value != "false"}
		switch u.Groups.Kind {
		case yaml.ScalarNode:
			made.groups = strings.FieldsFunc(u.Groups.Value, func(r rune) bool { return r == ',' || r == ' ' })
		case yaml.SequenceNode:
			if err := u.Groups.Decode(&made.groups); err != nil {
				return err
			}
		}
		if slices.Contains(made.groups, "docker") {
			s.note("users: the group docker is left out, there is no Docker")
			made.groups = slices.DeleteFunc(made.groups, func(g string) bool { return g == "docker" })
		}
		s.users = append(s.users, made)
	}
	return nil
}

// readFiles takes over the one file that HypriotOS' examples write: the
// networks of wpa_supplicant.conf(5).
func (s *settings) readFiles(node *yaml.Node) error {
	var files []struct{ Path, Content, Encoding string }
	if err := node.Decode(&files); err != nil {
		return err
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Path, "wpa_supplicant.conf") || f.Encoding != "" {
			s.note("write_files: %s is not written", f.Path)
			continue
		}
		var now network
		country := ""
		for line := range strings.Lines(f.Content) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			value = strings.Trim(value, `"`)
			switch {
			case key == "country":
				country = strings.ToUpper(value)
			case key == "ssid":
				now.ssid = value
			case key == "psk":
				now.password = value
			case strings.HasPrefix(key, "}") && now.ssid != "":
				now.country = country
				s.wifi = append(s.wifi, now)
				now = network{}
			}
		}
	}
	return nil
}

// result writes what was read.
func (s *settings) result() Result {
	file, vars := hclwrite.NewEmptyFile(), hclwrite.NewEmptyFile()
	body := file.Body()
	name := strings.ToLower(cmp.Or(s.hostname, "picube"))
	secret := func(variable, value string) hclwrite.Tokens {
		v := body.AppendNewBlock("variable", []string{variable}).Body()
		v.SetAttributeRaw("type", hclwrite.TokensForIdentifier("string"))
		v.SetAttributeValue("sensitive", cty.True)
		body.AppendNewline()
		vars.Body().SetAttributeValue(variable, cty.StringVal(value))
		return hclwrite.TokensForIdentifier("var." + variable)
	}
	numbered := func(stem string, i int) string {
		if i == 0 {
			return stem
		}
		return fmt.Sprintf("%s_%d", stem, i+1)
	}
	var keys []hclwrite.Tokens
	for i, n := range s.wifi {
		keys = append(keys, nil)
		if n.password != "" {
			keys[i] = secret(numbered("wifi_psk", i), n.password)
		}
	}
	hashes := map[string]hclwrite.Tokens{}
	for _, u := range s.users {
		if u.hash != "" {
			hashes[u.name] = secret(numbered("password_hash", len(hashes)), u.hash)
		}
	}
	cube := body.AppendNewBlock("cube", []string{name}).Body()
	cube.SetAttributeValue("nodes", cty.NumberIntVal(1))
	cube.SetAttributeValue("hostname", cty.StringVal(name))
	if len(s.packages) > 0 {
		cube.SetAttributeValue("packages", texts(s.packages))
	}
	for i, n := range s.wifi {
		cube.AppendNewline()
		w := cube.AppendNewBlock("wifi", nil).Body()
		w.SetAttributeValue("ssid", cty.StringVal(n.ssid))
		if keys[i] != nil {
			w.SetAttributeRaw("psk", keys[i])
		}
		w.SetAttributeValue("country", cty.StringVal(cmp.Or(n.country, "DE")))
		if n.country == "" {
			s.note("wifi: the country is not said; it was set to DE, change it to yours")
		}
	}
	for _, u := range s.users {
		cube.AppendNewline()
		b := cube.AppendNewBlock("user", []string{u.name}).Body()
		if len(u.keys) > 0 {
			b.SetAttributeValue("authorized_keys", texts(u.keys))
		}
		if hashes[u.name] != nil {
			b.SetAttributeRaw("password_hash", hashes[u.name])
		}
		if u.sudo {
			b.SetAttributeValue("sudo", cty.True)
		}
		if len(u.groups) > 0 {
			b.SetAttributeValue("groups", texts(u.groups))
		}
		if u.shell != "" {
			b.SetAttributeValue("shell", cty.StringVal(u.shell))
		}
	}
	if s.zone != "" {
		cube.AppendNewline()
		cube.AppendNewBlock("time", nil).Body().SetAttributeValue("zone", cty.StringVal(s.zone))
	}
	if s.locale != "" {
		s.note("locale: set it as debconf = { \"locales/locales_to_be_generated\" = \"%s UTF-8\" } with the package locales", s.locale)
	}
	slices.Sort(s.notes)
	return Result{Blueprint: hclwrite.Format(file.Bytes()), Variables: hclwrite.Format(vars.Bytes()), Notes: slices.Compact(s.notes)}
}

func texts(list []string) cty.Value {
	values := make([]cty.Value, len(list))
	for i, s := range list {
		values[i] = cty.StringVal(s)
	}
	return cty.TupleVal(values)
}
