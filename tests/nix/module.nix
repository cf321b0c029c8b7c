{ mvm.ports = [ 9090 ]; }
