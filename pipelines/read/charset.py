def decode(b,c): return b.decode('utf-8','replace'),'utf-8'
