package firmware

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPWMOverlay lets libfdt, which the firmware and the kernel use too, put
// the overlay onto a tree like theirs.
func TestPWMOverlay(t *testing.T) {
	const base = `/dts-v1/;
/ {
	compatible = "raspberrypi,3-model-b";
	gpio { audio: pwm0-gpio40 { }; pwm0_gpio18: pwm0-gpio18 { }; };
	pwm: pwm@7e20c000 { status = "disabled"; pinctrl-0 = <&audio>; };
};
`
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			t.Fatalf("%s %v: %v", name, args, err)
		}
		return string(out)
	}
	for name, data := range map[string][]byte{
		"base.dts": []byte(base), "fan.dtbo": PWMOverlay(PWM{Channel: 0, Pins: "pwm0_gpio18"}),
	} {
		if err := os.WriteFile(file(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run("dtc", "-q", "-@", "-o", file("base.dtb"), file("base.dts"))
	run("fdtoverlay", "-i", file("base.dtb"), "-o", file("out.dtb"), file("fan.dtbo"))
	get := func(what ...string) string { return strings.TrimSpace(run("fdtget", what...)) }
	if got := get(file("out.dtb"), "/pwm@7e20c000", "status"); got != "okay" {
		t.Errorf("status %q", got)
	}
	if got, want := get(file("out.dtb"), "/pwm@7e20c000", "pinctrl-0"), get(file("out.dtb"), "/gpio/pwm0-gpio18", "phandle"); got != want {
		t.Errorf("pinctrl-0 is %s, the pin has %s", got, want)
	}
}
