packages = ["htop"]
