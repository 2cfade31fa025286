module accept_all

go 1.24
