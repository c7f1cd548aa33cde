package statusd

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/layers/nodeconf"
)

func sample() Status {
	celsius, rpm, wear := 48.25, 2100, 20
	return Status{
		Hostname: "rpi1", Cube: "picube", Cluster: "picube", Role: "worker", Board: `Pi "3"`, Address: "10.42.1.1/16", Stage: "ready",
		Uptime: 61, Load: 0.42, Memory: Memory{Total: 1 << 30, Available: 1 << 29}, Disk: Memory{Total: 100 << 20, Available: 1 << 20},
		Temperature: &celsius, Wear: &wear, Fan: &Fan{Kind: "pwm", Duty: 0.5, RPM: &rpm, Problem: "it stands still"},
		WiFi: &WiFi{State: WrongPassword, SSID: "<b>"}, Throttled: []string{"low voltage"}, FailedUnits: []string{"ssh.service"},
	}
}

func TestProblems(t *testing.T) {
	s := sample()
	s.FindProblems()
	want := []string{"fan: it stands still", "low voltage", "card is full: 99%", "Wi-Fi: wrong password?", "failed: ssh"}
	if diff := cmp.Diff(want, s.Problems); diff != "" {
		t.Error(diff)
	}
}

func TestServe(t *testing.T) {
	n := &nodeconf.Node{Hostname: "rpi1", Peers: []nodeconf.Peer{{Name: "rpi1", Address: "10.42.1.1"}, {Name: "rpi2", Address: "10.42.1.2"}}}
	h, err := Handler(n, Config{Port: 8080}, func(context.Context) Status {
		s := sample()
		s.ClusterView = "<script>"
		s.FindProblems()
		return s
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, listener, h) }()
	base := "http://" + listener.Addr().String()
	get := func(path string) (int, string) {
		t.Helper()
		res, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	for path, parts := range map[string][]string{
		"/":            {"<h1>rpi1</h1>", `<b>rpi1</b>`, `<a href="http://10.42.1.2:8080/">rpi2</a>`, "&lt;script&gt;", "48.2 °C", "50% 2100 rpm", `class="problem">low voltage<`},
		"/status.json": {`"hostname":"rpi1"`, `"temperatureCelsius":48.25`},
		"/metrics": {"# TYPE picube_temperature_celsius gauge\npicube_temperature_celsius 48.25\n", `board="Pi \"3\""`,
			"picube_fan_duty_ratio{kind=\"pwm\"} 0.5\n", "picube_throttled 1\n", "picube_card_wear_ratio 0.2\n", "picube_problems 5\n"},
	} {
		code, body := get(path)
		for _, part := range parts {
			if code != 200 || !strings.Contains(body, part) {
				t.Errorf("%s (%d) lacks %q:\n%s", path, code, part, body)
			}
		}
	}
	if code, _ := get("/etc/passwd"); code != 404 {
		t.Errorf("another path: %d", code)
	}
	res, err := http.Post(base+"/", "text/plain", strings.NewReader("x"))
	if err != nil || res.StatusCode != 405 {
		t.Errorf("POST: %v %v", res, err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestReadWiFi(t *testing.T) {
	const list = "network id / ssid / bssid / flags\n0\tWLAN\tany\t[CURRENT]\n1\tother\tany\t[TEMP-DISABLED]\n"
	for _, tt := range []struct {
		status, networks string
		want             WiFi
	}{
		{"wpa_state=COMPLETED\nssid=WLAN\n", list, WiFi{State: "connected", SSID: "WLAN"}},
		{"wpa_state=COMPLETED\n" + `ssid=W\xc3\xbcrzburg \"1\" \\e ` + "\n", list, WiFi{State: "connected", SSID: `Würzburg "1" \e `}},
		{"wpa_state=COMPLETED\nssid=\\xff\\e\n", list, WiFi{State: "connected", SSID: `\xff\e`}},
		{"wpa_state=SCANNING\n", list, WiFi{State: WrongPassword, SSID: "other"}},
		{"wpa_state=SCANNING\n", "network id / ssid / bssid / flags\n0\tWLAN\tany\t\n", WiFi{State: "searching"}},
		{"wpa_state=INTERFACE_DISABLED\n", "", WiFi{State: "switched off"}},
		{"", "", WiFi{State: "searching"}},
	} {
		if got := readWiFi(tt.status, tt.networks); got != tt.want {
			t.Errorf("%q: %+v, want %+v", tt.status, got, tt.want)
		}
	}
}
