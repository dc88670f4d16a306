module foretide.dev/benchmarks/gateway/load

go 1.22
