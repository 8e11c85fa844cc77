URL = "postgresql+psycopg://shop@shop-db:5432/shop"
